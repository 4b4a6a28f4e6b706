/* Follows the tracer's command and all that descends from it. A program that can be told to follow includes this. */
#pragma once
#include "trace.h"

/* What to do at each of the three. A view that has programs of its own there calls them from these, and defines
 * FOLLOWS_ITSELF, since a tracepoint has one program of an object. */
inline void follow_exec(struct task_struct *task)
{
	u32 tgid = task->tgid;
	u8 one = 1;

	/* The command begins where its exec has succeeded: what the child did before is the tracer's. Its parent is the
	 * very thread that forked it. */
	if (follow && task->real_parent->pid == self_tid && bpf_map_update_elem(&followed, &tgid, &one, BPF_ANY))
		LOSE(map_full);
}

inline void follow_fork(struct task_struct *parent, struct task_struct *child)
{
	u32 from = parent->tgid, to = child->tgid;
	u8 one = 1;

	if (follow && from != to && bpf_map_lookup_elem(&followed, &from) &&
	    bpf_map_update_elem(&followed, &to, &one, BPF_ANY))
		LOSE(map_full);
}

/* The last thread of a process takes its entry along: process ids are used again. */
inline void follow_exit(struct task_struct *task)
{
	u32 tgid = task->tgid;

	if (follow && task->signal->live.counter == 0)
		bpf_map_delete_elem(&followed, &tgid);
}

#ifndef FOLLOWS_ITSELF
SEC("tp_btf/sched_process_exec")
int sched_process_exec(u64 *ctx)
{
	follow_exec((void *)ctx[0]);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int sched_process_fork(u64 *ctx)
{
	follow_fork((void *)ctx[0], (void *)ctx[1]);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int sched_process_exit(u64 *ctx)
{
	follow_exit((void *)ctx[0]);
	return 0;
}
#endif
