#include <greet.h>

#include "greeting.h"

int main(int argc, char **argv) {
	return greet(stdout, greeting, argc > 1 ? argv[1] : "world") < 0;
}
