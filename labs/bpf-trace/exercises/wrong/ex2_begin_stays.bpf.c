/* Fails `a_wait_ends_once`: the begin stays in the map, and every later return from futex counts again. */
#include "trace.h"

enum { FUTEX = 202 };                                          /* arch/x86/entry/syscalls/syscall_64.tbl */
enum { FUTEX_WAIT = 0, FUTEX_WAIT_BITSET = 9, FLAGS = 128 | 256 }; /* include/uapi/linux/futex.h */

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

struct begun {
	u64 at;
	u64 address;
};

/* Threads that wait now. */
struct {
	__uint(type, HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct begun);
} waiting SEC(".maps");

SEC("tp_btf/sys_enter")
int sys_enter(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	u32 tid = task->pid, op = regs->si & ~FLAGS;

	if (ctx[1] != FUTEX || (op != FUTEX_WAIT && op != FUTEX_WAIT_BITSET) || !wanted(task))
		return 0;
	struct begun begun = { bpf_ktime_get_ns(), regs->di };
	if (bpf_map_update_elem(&waiting, &tid, &begun, BPF_ANY))
		LOSE(map_full);
	return 0;
}

SEC("tp_btf/sys_exit")
int sys_exit(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	u32 tid = task->pid;

	if (regs->orig_ax != FUTEX)
		return 0;
	struct begun *begun = bpf_map_lookup_elem(&waiting, &tid);
	if (!begun)
		return 0; /* no wait, or one that had begun before we came */
	struct key key = { begun->address, task->tgid, 0 };
	u64 ns = bpf_ktime_get_ns() - begun->at;

	struct waits *w = bpf_map_lookup_elem(&waits, &key);
	if (!w) {
		struct waits none = {};
		bpf_map_update_elem(&waits, &key, &none, BPF_NOEXIST);
		w = bpf_map_lookup_elem(&waits, &key);
		if (!w) {
			LOSE(map_full);
			return 0;
		}
	}
	/* Threads of the process on other CPUs add to it, too. */
	__sync_fetch_and_add(&w->count, 1);
	__sync_fetch_and_add(&w->ns, ns);
	return 0;
}
