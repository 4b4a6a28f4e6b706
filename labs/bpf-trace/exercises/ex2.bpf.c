/* Exercise 2: who waits in futex(2), and for which lock. The statement is in the lab's README. */
#include "trace.h"

struct key {
	u64 address; /* of the futex, in its process */
	u32 tgid;
	u32 unused;  /* 0: a key is compared with all its bytes */
};

struct waits {
	u64 count;
	u64 ns; /* all together */
};

/* What has been found: read by the spec. */
struct {
	__uint(type, HASH);
	__uint(max_entries, 1024);
	__type(key, struct key);
	__type(value, struct waits);
} waits SEC(".maps");

/* TODO(you): where does a thread that has begun to wait keep when, and for what? */

/* ctx[0]: the registers, a struct pt_regs; ctx[1]: the number of the call. */
SEC("tp_btf/sys_enter")
int sys_enter(u64 *ctx)
{
	/* TODO(you): is it a wait, of a process that is wanted()? */
	return 0;
}

/* ctx[0]: the registers; ctx[1]: what the call returned. Its number is in the registers, as orig_ax. */
SEC("tp_btf/sys_exit")
int sys_exit(u64 *ctx)
{
	/* TODO(you): add the time to the waits of this process for this address. */
	return 0;
}
