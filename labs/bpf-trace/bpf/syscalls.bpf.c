/* Counts system calls where they return: only then is it known how they went. */
#include "comms.h"
#include "follow.h"
#include "histogram.h"

enum by { BY_SYSCALL, BY_PROCESS, BY_THREAD };
const volatile u32 by = BY_PROCESS;
const volatile u32 timing = 0;        /* whether to time calls: one more program, at their entry */
const volatile u32 failures_only = 0;
const volatile u32 only_syscall = ~0; /* ~0: all */
const volatile u64 slower_than = 0;   /* ns; needs timing */

#define MAX_ERRNO 4095 /* include/linux/err.h */
#define TS_COMPAT 2    /* arch/x86/include/asm/thread_info.h: this call came through the 32-bit entry */
#define COMPAT (1u << 31)
enum { RT_SIGRETURN = 15, CLONE = 56, FORK = 57, VFORK = 58, CLONE3 = 435 };

struct key {
	u32 id; /* process or thread; 0: all together */
	u32 nr; /* COMPAT set: of the 32-bit table */
};

struct calls {
	u64 count;
	u64 failed;
};

struct timed {
	struct calls calls;
	struct histogram ns;
};

/* A copy for each CPU, so that no two of them ever write to the same one; and the kernel lets nobody preempt a program
 * at these two tracepoints, so plain additions are exact. A lookup in a hash map is the larger part of the cost, so
 * there is one: in the second map if calls are timed, else in the first. The other has one entry. All entries are
 * made beforehand: memory that is asked for here, in a burst of new processes, may not be had. */
struct {
	__uint(type, PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, struct calls);
} calls SEC(".maps");

struct {
	__uint(type, PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, struct timed);
} timed SEC(".maps");

struct failure {
	struct key call;
	u32 errno;
};

struct {
	__uint(type, PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct failure);
	__type(value, u64);
} failures SEC(".maps");

/* When the task's call began: storage that belongs to the task, and goes with it. */
struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u64);
} begun SEC(".maps");

inline int on_exit(struct task_struct *task, u32 nr, s64 ret)
{
	struct key key = {};
	u64 *start, ns = 0;

	if (!wanted(task))
		return 0;
	if (nr == ~0u)
		nr = RT_SIGRETURN; /* it has put back the registers of before the signal, its own number gone */
	if (ret == 0 && (nr == CLONE || nr == FORK || nr == VFORK || nr == CLONE3))
		return 0; /* one call returns twice: this is the child, which has made none */
	if (task->thread_info.status & TS_COMPAT)
		nr |= COMPAT;
	if (only_syscall != ~0u && nr != only_syscall)
		return 0;
	int failed = ret < 0 && ret >= -MAX_ERRNO;
	if (failures_only && !failed)
		return 0;
	if (timing) {
		start = bpf_task_storage_get(&begun, task, 0, 0);
		if (start && *start) {
			ns = bpf_ktime_get_ns() - *start;
			*start = 0;
		}
		if (ns < slower_than)
			return 0;
	}
	key.id = by == BY_PROCESS ? pid_of(task) : by == BY_THREAD ? tid_of(task) : 0;
	key.nr = nr;

	void *map = timing ? (void *)&timed : (void *)&calls;
	struct calls *c = bpf_map_lookup_elem(map, &key);
	if (!c) {
		static const struct timed none;
		if (by != BY_SYSCALL)
			remember_name(task, key.id);
		bpf_map_update_elem(map, &key, &none, BPF_NOEXIST);
		c = bpf_map_lookup_elem(map, &key);
		if (!c) {
			LOSE(map_full);
			return 0;
		}
	}
	c->count++;
	if (failed) {
		struct failure failure = { key, -ret };
		u64 *n = bpf_map_lookup_elem(&failures, &failure);
		c->failed++;
		if (n) {
			++*n;
		} else {
			u64 one = 1;
			if (bpf_map_update_elem(&failures, &failure, &one, BPF_ANY))
				LOSE(map_full);
		}
	}
	if (timing && ns)
		histogram_add(&((struct timed *)c)->ns, ns);
	return 0;
}

inline int on_enter(struct task_struct *task)
{
	if (!wanted(task))
		return 0;
	u64 *start = bpf_task_storage_get(&begun, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (start)
		*start = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sys_exit")
int sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];

	return on_exit(bpf_get_current_task_btf(), regs->orig_ax, ctx[1]);
}

SEC("raw_tp/sys_exit")
int raw_sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	u64 nr;

	bpf_probe_read_kernel(&nr, sizeof(nr), &regs->orig_ax);
	return on_exit(bpf_get_current_task_btf(), nr, ctx[1]);
}

/* The layout of a tracepoint's record: its format file in tracefs. */
struct sys_exit_record {
	u64 common;
	s64 nr;
	s64 ret;
};

SEC("tp/raw_syscalls/sys_exit")
int tp_sys_exit(struct sys_exit_record *record)
{
	return on_exit(bpf_get_current_task_btf(), record->nr, record->ret);
}

SEC("tp_btf/sys_enter")
int sys_enter(u64 *ctx)
{
	return on_enter(bpf_get_current_task_btf());
}

SEC("raw_tp/sys_enter")
int raw_sys_enter(u64 *ctx)
{
	return on_enter(bpf_get_current_task_btf());
}

SEC("tp/raw_syscalls/sys_enter")
int tp_sys_enter(void *record)
{
	return on_enter(bpf_get_current_task_btf());
}
