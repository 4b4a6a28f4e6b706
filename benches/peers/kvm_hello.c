/*
 * The peer of `kvm-hello --quick`: the same guest, the same calls, as little else as C allows.
 *
 *   cc -O2 -o kvm_hello kvm_hello.c
 *   ./kvm_hello        says hello, exit 0 if the guest did all three things
 *   ./kvm_hello -t     also prints the time from KVM_CREATE_VM to the first exit, and how many there were
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (2 << 20)

/* labs/kvm-hello/src/guest/real.s, assembled for address 0x1000. */
static const unsigned char code[] =
    "\xba\xf8\x03"     /* mov dx, 0x3f8   */
    "\xbe\x1a\x10"     /* mov si, message */
    "\xac"             /* lodsb           */
    "\x84\xc0"         /* test al, al     */
    "\x74\x03"         /* je +3           */
    "\xee"             /* out dx, al      */
    "\xeb\xf8"         /* jmp -8          */
    "\xb8\x06\x00"     /* mov ax, 6       */
    "\xb9\x07\x00"     /* mov cx, 7       */
    "\xf7\xe1"         /* mul cx          */
    "\xa3\x00\x04"     /* mov [0x400], ax */
    "\xf4"             /* hlt             */
    "Hello from real mode\n";

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		err(4, "open(/dev/kvm)");
	uint64_t start = now();
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		err(1, "KVM_CREATE_VM");
	int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	unsigned char *memory =
	    mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (run_size < 0 || memory == MAP_FAILED)
		err(1, "mmap");
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory };
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		err(1, "KVM_SET_USER_MEMORY_REGION");
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		err(1, "KVM_CREATE_VCPU");
	struct kvm_run *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "mmap(vcpu)");
	memcpy(memory + 0x1000, code, sizeof code);

	struct kvm_sregs sregs;
	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		err(1, "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
		err(1, "KVM_SET_SREGS");
	struct kvm_regs regs = { .rip = 0x1000, .rsp = 0x8000, .rflags = 2 };
	if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		err(1, "KVM_SET_REGS");

	uint64_t first = 0;
	char said[64];
	size_t len = 0;
	unsigned exits = 0;
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0)
			err(1, "KVM_RUN");
		exits++;
		if (!first)
			first = now() - start;
		if (run->exit_reason != KVM_EXIT_IO)
			break;
		if (run->io.port == 0x3f8 && len < sizeof said)
			said[len++] = *((char *)run + run->io.data_offset);
	}
	if (run->exit_reason != KVM_EXIT_HLT)
		errx(1, "exit reason %u", run->exit_reason);
	if (ioctl(vcpu, KVM_GET_REGS, &regs) < 0)
		err(1, "KVM_GET_REGS");
	if (argc > 1 && !strcmp(argv[1], "-t"))
		printf("first exit %llu ns\nexits: %u\n", (unsigned long long)first, exits);
	printf("guest> %.*s", (int)len, said);
	return regs.rax == 42 && memory[0x400] == 42 ? 0 : 1;
}
