#ifndef GREET_H
#define GREET_H
#include <stddef.h>

/* Writes "hello, NAME" into out; a NAME that is empty or absent is "world". */
void greet(char *out, size_t size, const char *name);

#endif
