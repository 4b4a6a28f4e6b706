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

/* What is counted apart. */
struct key {
	u32 id;    /* process or thread; 0: all together */
	u32 nr;    /* COMPAT set: of the 32-bit table */
	u32 errno; /* 0: it has not failed */
};

struct timed {
	u64 count;
	struct histogram ns;
};

/* Each key has a place of its own, the same on all CPUs; what is there is counted in the array `timed` if calls are
 * timed, else in `calls`. The other has one entry. An array of a copy for each CPU, so that no two of them ever write
 * to the same one; and the kernel lets nobody preempt a program at these two tracepoints, so plain additions are exact.
 * All entries are made beforehand: memory that is asked for here, in a burst of new processes, may not be had. */
struct {
	__uint(type, HASH);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, u32);
} places SEC(".maps");

struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u64);
} calls SEC(".maps");

struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct timed);
} timed SEC(".maps");

u64 next_place = 1; /* 0 is none: what memory has before it is written */

/* A hash map finds a place by three calls of kernel functions; an array's entry is found by the program itself (the
 * verifier puts the instructions in). So each CPU keeps in mind the places that it has used last. */
struct recent {
	struct key key;
	u32 place;
};

#define RECENT 256
struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, RECENT);
	__type(key, u32);
	__type(value, struct recent);
} recent SEC(".maps");

/* When the task's call began: storage that belongs to the task, and goes with it. */
struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u64);
} begun SEC(".maps");

/* Finds the place of a key, or gives it one; 0: there is no room. */
static __attribute__((noinline)) u32 place_of(struct task_struct *task, struct key *key)
{
	u32 *place = bpf_map_lookup_elem(&places, key);

	if (!place) {
		u32 next = __sync_fetch_and_add(&next_place, 1);
		if (by != BY_SYSCALL)
			remember_name(task, key->id);
		/* Another CPU may have been faster: then its place it is. */
		bpf_map_update_elem(&places, key, &next, BPF_NOEXIST);
		place = bpf_map_lookup_elem(&places, key);
	}
	return place ? *place : 0;
}

inline void *counted(struct task_struct *task, struct key *key)
{
	u32 at = ((key->id * 31 + key->nr) * 31 + key->errno) % RECENT;
	struct recent *r = bpf_map_lookup_elem(&recent, &at);

	if (!r)
		return 0;
	if (r->key.id != key->id || r->key.nr != key->nr || r->key.errno != key->errno || !r->place) {
		r->place = place_of(task, key);
		r->key = *key;
	}
	u32 index = r->place - 1;
	return bpf_map_lookup_elem(timing ? (void *)&timed : (void *)&calls, &index);
}

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
	key.errno = ret < 0 && ret >= -MAX_ERRNO ? -ret : 0;
	if (failures_only && !key.errno)
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

	u64 *count = counted(task, &key);
	if (!count) {
		LOSE(map_full);
		return 0;
	}
	++*count;
	if (timing && ns)
		histogram_add(&((struct timed *)count)->ns, ns);
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
