/* In tests this takes the place of VirtualBox's program that runs a machine: it
 * does without the kernel driver, and VirtualBox interprets the instructions. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#define DRIVERLESS 4
#define INTERPRETED 8

int RTR3InitExe(int argc, char ***argv, uint32_t flags);
int SUPR3InitEx(uint32_t flags, void **session);

/* The libraries call this one instead of their own. */
int SUPR3Init(void **session)
{
	return SUPR3InitEx(DRIVERLESS | INTERPRETED, session);
}

int main(int argc, char **argv, char **envp)
{
	int (*run)(int, char **, char **);
	void *lib;
	int rc = RTR3InitExe(argc, &argv, 0);

	if (rc >= 0)
		rc = SUPR3Init(NULL);
	if (rc < 0) {
		fprintf(stderr, "VirtualBox's runtime does not start: %d\n", rc);
		return 1;
	}
	lib = dlopen("/usr/lib/virtualbox/VBoxHeadless.so", RTLD_NOW | RTLD_GLOBAL);
	if (!lib || !(run = (int (*)(int, char **, char **))dlsym(lib, "TrustedMain"))) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	return run(argc, argv, envp);
}
