/* clickhouse-local as a program: passes its arguments on to the main function inside the engine's shared library. */
#include <stdio.h>

struct chdb_result_;
struct chdb_result_ *chdb_query_cmdline(int argc, char **argv);
const char *chdb_result_error(struct chdb_result_ *result);

int main(int argc, char **argv)
{
    struct chdb_result_ *result = chdb_query_cmdline(argc, argv);
    if (result == NULL) {
        fputs("clickhouse-local: no result\n", stderr);
        return 1;
    }
    const char *error = chdb_result_error(result);
    if (error != NULL) {
        fprintf(stderr, "clickhouse-local: %s\n", error);
        return 1;
    }
    return 0;
}
