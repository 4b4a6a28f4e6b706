/* Called in known ways, a known number of times: tests/uprobe.rs counts along. */
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define APART __attribute__((noinline, noclone))

static jmp_buf back;
static int n;

APART int work(int i)
{
	__asm__ volatile("" : "+r"(i));
	return i;
}

APART int deeper(int i)
{
	int below = i ? deeper(i - 1) : 0;

	__asm__ volatile("" : "+r"(below));
	return below + 1;
}

/* Every second time it does not return. */
APART int jumps(int i)
{
	if (i % 2)
		longjmp(back, 1);
	return work(i);
}

/* Two that end by jumping to each other, where the compiler makes a jump of it. */
APART int odd(int i);
APART int even(int i)
{
	__asm__ volatile("" : "+r"(i));
	return i == 0 ? 1 : odd(i - 1);
}

APART int odd(int i)
{
	__asm__ volatile("" : "+r"(i));
	return i == 0 ? 0 : even(i - 1);
}

/* Every fifth time it takes five milliseconds. */
APART int slow(int i)
{
	struct timespec t = { .tv_nsec = 5000000 };

	if (i % 5 == 0)
		nanosleep(&t, 0);
	return work(i);
}

static void *threads(void *unused)
{
	for (int i = 0; i < n; i++)
		work(i);
	return unused;
}

int main(int argc, char **argv)
{
	const char *how = argc > 2 ? argv[1] : "";
	volatile int i;

	n = argc > 2 ? atoi(argv[2]) : 0;
	if (!strcmp(how, "threads")) {
		pid_t child = fork();
		pthread_t t[4];
		for (i = 0; i < 4; i++)
			pthread_create(&t[i], 0, threads, 0);
		for (i = 0; i < 4; i++)
			pthread_join(t[i], 0);
		if (child)
			wait(0);
	}
	if (!strcmp(how, "line")) {
		char c;
		read(0, &c, 1);
		threads(0);
	}
	for (i = 0; i < n; i++) {
		if (!strcmp(how, "deeper"))
			deeper(argc > 3 ? atoi(argv[3]) : 0);
		if (!strcmp(how, "jumps") && !setjmp(back))
			jumps(i);
		if (!strcmp(how, "even"))
			even(10);
		if (!strcmp(how, "slow"))
			slow(i);
	}
	return 0;
}
