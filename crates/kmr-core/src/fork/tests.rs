//! Tests of a fork: order and side of rows, and deliveries of one side alone.

use super::*;

/// Collects numbers. A batch fails `failures` times, and rejects the number `rejects`.
#[derive(Default)]
struct Sink {
    open: Vec<u32>,
    failures: u32,
    rejects: Option<u32>,
    stored: Arc<Mutex<Vec<u32>>>,
}

struct Frozen {
    rows: Vec<u32>,
    failures: u32,
    rejects: Option<u32>,
    stored: Arc<Mutex<Vec<u32>>>,
}

#[async_trait]
impl Reducer for Sink {
    type Rows = Vec<u32>;
    type Output = usize;

    fn new_rows(&self) -> Vec<u32> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<u32>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        Ok(Box::new(Frozen {
            rows: std::mem::take(&mut self.open),
            failures: self.failures,
            rejects: self.rejects,
            stored: Arc::clone(&self.stored),
        }))
    }
}

#[async_trait]
impl Delivery for Frozen {
    type Output = usize;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        if attempt.number <= self.failures {
            return Err(DeliveryError::retryable("busy"));
        }
        let at = self.rows.iter().position(|row| Some(*row) == self.rejects);
        self.stored.lock().unwrap().extend(self.rows.iter().filter(|row| Some(**row) != self.rejects));
        let rejected = at.map(|index| RejectedRow { index, error: "rejected".into() });
        Ok(Delivered { output: self.rows.len(), rejected: rejected.into_iter().collect() })
    }
}

fn even_and_odd(left: Sink, right: Sink) -> Fork<u32, Sink, Sink> {
    Fork::new(left, right, |n| if n % 2 == 0 { Either::Left(n) } else { Either::Right(n) })
}

fn chunk(
    fork: &Fork<u32, Sink, Sink>,
    numbers: impl IntoIterator<Item = u32>,
) -> Chunk<ForkRows<u32, Vec<u32>, Vec<u32>>> {
    let mut rows = fork.new_rows();
    numbers.into_iter().for_each(|n| rows.push(n).unwrap());
    Chunk::new(rows, Vec::new())
}

#[test]
fn rows_are_split_at_the_same_index_on_both_sides() {
    let fork = even_and_odd(Sink::default(), Sink::default());
    let mut rows = chunk(&fork, [0, 1, 3, 5, 2, 7]).rows;
    let rest = rows.split_off(3);
    assert_eq!((rows.len(), &*rows.left, &*rows.right), (3, &[0][..], &[1, 3][..]));
    assert_eq!((rest.len(), &*rest.left, &*rest.right), (3, &[2][..], &[5, 7][..]));
    rows.truncate(2);
    assert_eq!((rows.len(), &*rows.left, &*rows.right), (2, &[0][..], &[1][..]));
    assert_eq!(rows.bytes(), 8);
}

#[tokio::test]
async fn delivered_side_waits_for_the_other_and_is_not_delivered_again() {
    let (left, right) = (Sink::default(), Sink { failures: 2, rejects: Some(3), ..Sink::default() });
    let (evens, odds) = (Arc::clone(&left.stored), Arc::clone(&right.stored));
    let mut fork = even_and_odd(left, right);
    fork.accept(chunk(&fork, [0, 1, 2])).unwrap();
    fork.accept(chunk(&fork, [3, 4])).unwrap();
    let batch = fork.freeze().unwrap();
    for number in 1..=2 {
        assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable());
    }
    let delivered = batch.deliver(Attempt::new(3)).await.unwrap();
    assert_eq!(delivered.output, ForkOutput { left: Some(3), right: Some(2) });
    // Row 3 of the batch is row 1 of its side.
    assert_eq!(delivered.rejected.iter().map(|row| row.index).collect::<Vec<_>>(), [3]);
    assert_eq!((&**evens.lock().unwrap(), &**odds.lock().unwrap()), (&[0, 2, 4][..], &[1][..]));
}

#[tokio::test]
async fn side_without_rows_is_not_delivered() {
    let mut fork = even_and_odd(Sink::default(), Sink { failures: u32::MAX, ..Sink::default() });
    fork.accept(chunk(&fork, [2, 4])).unwrap();
    let delivered = fork.freeze().unwrap().deliver(Attempt::new(1)).await.unwrap();
    assert_eq!(delivered.output, ForkOutput { left: Some(2), right: None });
}
