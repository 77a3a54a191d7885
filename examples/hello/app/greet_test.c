#include "greet.h"
#include <stdio.h>
#include <string.h>

static int failures;

static void expect(const char *name, const char *want)
{
    char got[64];
    greet(got, sizeof got, name);
    if (strcmp(got, want) != 0) {
        printf("greet_test.c: expected \"%s\", got \"%s\"\n", want, got);
        failures++;
    }
}

int main(void)
{
    expect(NULL, "hello, world");
    expect("", "hello, world");
    expect("windlass", "hello, windlass");
    printf("%d of 3 tests failed\n", failures);
    return failures != 0;
}
