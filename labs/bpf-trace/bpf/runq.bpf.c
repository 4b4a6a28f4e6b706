/* How long tasks wait for a CPU: from the moment that they can run to the moment that they do. */
#include "comms.h"
#include "follow.h"
#include "histogram.h"
#include "sched.h"

const volatile u32 by_thread = 0;   /* else by process */
const volatile u64 slower_than = 0; /* ns */

enum why { WOKEN, PUT_BACK };

struct key {
	u32 id;
	u32 why;
};

/* Made beforehand and shared by all CPUs: memory cannot be had safely while a run queue is locked, as it is here. */
struct {
	__uint(type, HASH);
	__uint(max_entries, 8192);
	__type(key, struct key);
	__type(value, struct histogram);
} waits SEC(".maps");

enum { UNFINISHED, UNSEEN };

/* Waits that had not ended when the trace did; and waits that could not be timed. There are machines on which the
 * kernel calls no program in the context of certain tasks, such as the first process of a virtual machine: whom they
 * wake, and whom they leave the CPU to, is not seen. */
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

enum where { NOT_SEEN_YET, AWAY, ON_CPU };

struct queued {
	u64 since; /* 0: does not wait */
	u32 why;
	u32 where;
};

struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct queued);
} queue SEC(".maps");

inline struct queued *queued(struct task_struct *task)
{
	struct queued *q = bpf_task_storage_get(&queue, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!q)
		LOSE(map_full);
	return q;
}

/* Ends a task's wait, if it has one: 1. */
inline int end(struct task_struct *task, struct queued *q)
{
	struct key key = {};
	u64 since, ns;

	/* Taken once: by the switch that ends it, or by the sweep at the end of the trace. */
	since = __sync_lock_test_and_set(&q->since, 0);
	if (!since)
		return 0;
	ns = bpf_ktime_get_ns() - since;
	if (ns < slower_than)
		return 1;
	key.id = by_thread ? tid_of(task) : pid_of(task);
	key.why = q->why;
	struct histogram *h = bpf_map_lookup_elem(&waits, &key);
	if (!h) {
		static const struct histogram none;
		remember_name(by_thread ? task : task->group_leader, key.id);
		bpf_map_update_elem(&waits, &key, &none, BPF_NOEXIST);
		h = bpf_map_lookup_elem(&waits, &key);
		if (!h) {
			LOSE(map_full);
			return 1;
		}
	}
	histogram_add_shared(h, ns);
	return 1;
}

inline int on_wakeup(struct task_struct *task)
{
	/* Woken before it has left the CPU: it goes on, or sched_switch will find it runnable. */
	if (!wanted(task) || task->on_cpu)
		return 0;
	struct queued *q = queued(task);
	/* Woken while it waits already: it was preempted just before it went to sleep. The wait goes on. */
	if (q && !q->since) {
		q->why = WOKEN;
		q->where = AWAY;
		q->since = bpf_ktime_get_ns();
	}
	return 0;
}

SEC("tp_btf/sched_wakeup")
int sched_wakeup(u64 *ctx)
{
	return on_wakeup((void *)ctx[0]);
}

SEC("tp_btf/sched_wakeup_new")
int sched_wakeup_new(u64 *ctx)
{
	return on_wakeup((void *)ctx[0]);
}

inline int on_switch(int preempted, struct task_struct *prev, struct task_struct *next, u32 state)
{
	struct queued *q;

	/* Pid 0 is what a CPU does when there is nothing to do: it waits for nobody. */
	if (prev->pid && wanted(prev) && (q = queued(prev))) {
		if (q->where == AWAY)
			note(UNSEEN); /* how did it come here? */
		q->where = AWAY;
		q->why = PUT_BACK;
		q->since = still_runnable(preempted, prev, state) ? bpf_ktime_get_ns() : 0;
	}
	if (next->pid && wanted(next) && (q = bpf_task_storage_get(&queue, next, 0, 0))) {
		if (!end(next, q) && q->where == AWAY)
			note(UNSEEN); /* who woke it? */
		q->where = ON_CPU;
	}
	return 0;
}

SEC("tp_btf/sched_switch")
int sched_switch(u64 *ctx)
{
	return on_switch(ctx[0], (void *)ctx[1], (void *)ctx[2], ctx[3]);
}

SEC("tp_btf/sched_switch")
int old_sched_switch(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1];

	return on_switch(ctx[0], prev, (void *)ctx[2], state_of(prev));
}

/* Run once over all threads when the trace ends. */
SEC("iter/task")
int sweep(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];
	struct queued *q;

	if (task && !task->on_cpu && (q = bpf_task_storage_get(&queue, task, 0, 0))) {
		q->where = NOT_SEEN_YET;
		if (end(task, q))
			note(UNFINISHED);
	}
	return 0;
}
