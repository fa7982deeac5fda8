/* embed NAME <text >header: the text as a C string called NAME. */
#include <stdio.h>

int main(int argc, char **argv) {
	int c;

	if (argc != 2) {
		fputs("usage: embed NAME <text >header\n", stderr);
		return 2;
	}
	printf("static const char %s[] = \"", argv[1]);
	while ((c = getchar()) != EOF)
		printf("\\%03o", c);
	puts("\";");
	return 0;
}
