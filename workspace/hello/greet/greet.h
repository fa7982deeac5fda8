#ifndef GREET_H
#define GREET_H

#include <stdio.h>

/* greet writes a line with greeting and name; it returns what fprintf does. */
int greet(FILE *to, const char *greeting, const char *name);

#endif
