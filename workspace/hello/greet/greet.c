#include "greet.h"

int greet(FILE *to, const char *greeting, const char *name) {
	return fprintf(to, "%s, %s!\n", greeting, name);
}
