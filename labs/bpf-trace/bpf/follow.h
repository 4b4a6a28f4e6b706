/* Follows the tracer's command and all that descends from it. A program that can be told to follow includes this. */
#pragma once
#include "trace.h"

/* The command begins where its exec has succeeded: what the child did before is the tracer's. */
SEC("tp_btf/sched_process_exec")
int sched_process_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u32 tgid = task->tgid;
	u8 one = 1;

	if (follow && task->real_parent->tgid == self_tgid && bpf_map_update_elem(&followed, &tgid, &one, BPF_ANY))
		LOSE(map_full);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int sched_process_fork(u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	u32 from = parent->tgid, to = child->tgid;
	u8 one = 1;

	if (follow && from != to && bpf_map_lookup_elem(&followed, &from) &&
	    bpf_map_update_elem(&followed, &to, &one, BPF_ANY))
		LOSE(map_full);
	return 0;
}

/* The last thread of a process takes its entry along: process ids are used again. */
SEC("tp_btf/sched_process_exit")
int sched_process_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u32 tgid = task->tgid;

	if (follow && task->signal->live.counter == 0)
		bpf_map_delete_elem(&followed, &tgid);
	return 0;
}
