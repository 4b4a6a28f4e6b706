/* Where threads leave the CPU, and for how long: added up by stack. */
#include "follow.h"
#include "sched.h"

const volatile u64 slower_than = 0; /* ns */
const volatile u64 faster_than = ~0ull;

#define EFAULT 14
#define EEXIST 17
#define DEPTH 127

typedef u64 frames[DEPTH];

/* Stacks by number. A stack's number is its hash, so two may want the same one. The second goes to a map of its own,
 * in which there are few. */
struct {
	__uint(type, STACK_TRACE);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, frames);
} stacks SEC(".maps");

struct {
	__uint(type, STACK_TRACE);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, frames);
} more_stacks SEC(".maps");

#define MORE (1u << 31) /* the number is one of more_stacks */
#define NO_STACK (~0u)  /* a thread of the kernel has none of its own */
#define STACK_LOST (~0u - 1)

enum state { SLEEPS, SLEEPS_UNINTERRUPTIBLY, IDLES, STOPPED, RUNNABLE };

struct key {
	u64 mm; /* which program the process runs: another one after exec */
	u32 tgid;
	u32 user;
	u32 kernel;
	u32 state;
	char comm[16];
};

struct total {
	u64 count;
	u64 ns;
	u64 max;
	u64 open; /* how many of them had not ended when the trace did */
};

/* Made beforehand: memory cannot be had safely while a run queue is locked, as it is here. */
struct {
	__uint(type, HASH);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, struct total);
} totals SEC(".maps");

/* Told at once, while the thread is there to be asked where its program is in memory. */
struct {
	__uint(type, RINGBUF);
	__uint(max_entries, 1 << 20);
} news SEC(".maps");

enum { STACKS_LOST, UNSEEN };

/* Stacks for which there was no room; and times that could not be measured. There are machines on which the kernel
 * calls no program in the context of certain tasks, such as the first process of a virtual machine: whom they leave
 * the CPU to is not seen. */
struct {
	__uint(type, ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} notes SEC(".maps");

inline void note(u32 what)
{
	u64 *n = bpf_map_lookup_elem(&notes, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
}

struct away {
	u64 since; /* 0: on a CPU */
	struct key key;
};

struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct away);
} away SEC(".maps");

inline u32 stack_of(void *ctx, u64 flags)
{
	long id = bpf_get_stackid(ctx, &stacks, flags);

	if (id >= 0)
		return id;
	if (id == -EFAULT)
		return NO_STACK;
	id = bpf_get_stackid(ctx, &more_stacks, flags);
	if (id >= 0)
		return id | MORE;
	note(STACKS_LOST);
	return STACK_LOST;
}

inline u32 state_class(int runnable, u32 state)
{
	if (runnable)
		return RUNNABLE;
	if (state & TASK_INTERRUPTIBLE)
		return SLEEPS;
	if (state & TASK_NOLOAD)
		return IDLES; /* a thread of the kernel that waits for work */
	if (state & TASK_UNINTERRUPTIBLE)
		return SLEEPS_UNINTERRUPTIBLY;
	return STOPPED;
}

inline void begin(void *ctx, struct task_struct *task, int preempted, u32 state)
{
	struct away *a = bpf_task_storage_get(&away, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	static const struct total none;

	if (!a) {
		LOSE(map_full);
		return;
	}
	if (a->since)
		note(UNSEEN); /* how did it come here? */
	a->since = 0;
	a->key.mm = (u64)task->mm;
	a->key.tgid = pid_of(task);
	a->key.state = state_class(preempted || state == 0, state);
	a->key.kernel = stack_of(ctx, 0);
	a->key.user = a->key.mm ? stack_of(ctx, BPF_F_USER_STACK) : NO_STACK;
	bpf_probe_read_kernel(a->key.comm, sizeof(a->key.comm), task->comm);
	if (!bpf_map_lookup_elem(&totals, &a->key)) {
		if (bpf_map_update_elem(&totals, &a->key, &none, BPF_NOEXIST) == -7 /* E2BIG */) {
			LOSE(map_full);
			return;
		}
		bpf_ringbuf_output(&news, &a->key, sizeof(a->key), 0);
	}
	a->since = bpf_ktime_get_ns();
}

/* Ends the time that a task has been away, if it has: 1. */
inline int end(struct task_struct *task, int open)
{
	struct away *a = bpf_task_storage_get(&away, task, 0, 0);
	u64 since, ns, max;

	if (!a)
		return 0;
	/* Taken once: by the switch that ends it, or by the sweep at the end of the trace. */
	since = __sync_lock_test_and_set(&a->since, 0);
	if (!since)
		return 0;
	ns = bpf_ktime_get_ns() - since;
	if (ns < slower_than || ns > faster_than)
		return 0;
	struct total *t = bpf_map_lookup_elem(&totals, &a->key);
	if (!t)
		return 0;
	__sync_fetch_and_add(&t->count, 1);
	__sync_fetch_and_add(&t->ns, ns);
	if (open)
		__sync_fetch_and_add(&t->open, 1);
	/* Another CPU may come in between, but not for ever. */
	for (int i = 0; i < 16; i++) {
		max = t->max;
		if (ns <= max || __sync_val_compare_and_swap(&t->max, max, ns) == max)
			break;
	}
	return 1;
}

inline int on_switch(void *ctx, int preempted, struct task_struct *prev, struct task_struct *next, u32 state)
{
	/* Pid 0 is what a CPU does when there is nothing to do. Who is dead does not come back. */
	if (prev->pid && !(state & TASK_DEAD) && wanted(prev))
		begin(ctx, prev, preempted, state);
	if (next->pid)
		end(next, 0);
	return 0;
}

SEC("tp_btf/sched_switch")
int sched_switch(u64 *ctx)
{
	return on_switch(ctx, ctx[0], (void *)ctx[1], (void *)ctx[2], ctx[3]);
}

SEC("tp_btf/sched_switch")
int old_sched_switch(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1];

	return on_switch(ctx, ctx[0], prev, (void *)ctx[2], state_of(prev));
}

/* Run once over all threads when the trace ends. */
SEC("iter/task")
int sweep(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];

	if (task && !task->on_cpu)
		end(task, 1);
	return 0;
}
