/* The names of processes and threads that have been seen, for those that are gone when they are shown. */
#pragma once
#include "trace.h"

struct name {
	char comm[16];
};

struct {
	__uint(type, HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct name);
} comms SEC(".maps");

/* `task` is the thread, or the process's first one. A name that finds no room is shown as none. */
inline void remember_name(struct task_struct *task, u32 id)
{
	struct name name = { "(outside)" }; /* all those that the tracer's PID namespace does not see */

	if (id)
		bpf_probe_read_kernel(&name, sizeof(name), task->comm);
	bpf_map_update_elem(&comms, &id, &name, BPF_ANY);
}
