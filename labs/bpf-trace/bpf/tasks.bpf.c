/* Lists tasks as ps does, without /proc: the kernel calls this once for each, and once more at the end. */
#include "trace.h"

static long (*bpf_seq_write)(void *to, const void *data, u32 len) = (void *)127;

struct bpf_iter_meta {
	struct seq_file *seq;
} CORE;

struct record {
	s32 outermost; /* the process, as the outermost PID namespace knows it */
	s32 here;      /* as the reader's does */
	s32 inside;    /* as its own does */
	s32 tid;       /* the thread, as the reader's does */
	char comm[16];
};

/* A namespace's number of a process id: 0 where that one is not seen. */
inline s32 number(struct pid *pid, u32 level)
{
	struct upid upid = {};

	if (level <= pid->level)
		bpf_probe_read_kernel(&upid, sizeof(upid), (void *)pid->numbers + level * sizeof(upid));
	return upid.nr;
}

SEC("iter/task")
int task(u64 *ctx)
{
	struct bpf_iter_meta *meta = (void *)ctx[0];
	struct task_struct *task = (void *)ctx[1];
	struct record r = {};

	if (!task)
		return 0;
	struct task_struct *reader = bpf_get_current_task_btf();
	struct pid *process = task->group_leader->thread_pid, *thread = task->thread_pid;
	u32 level = reader->thread_pid->level;
	r.outermost = task->tgid;
	r.here = number(process, level);
	r.inside = number(process, process->level);
	r.tid = number(thread, level);
	bpf_probe_read_kernel(r.comm, sizeof(r.comm), task->comm);
	bpf_seq_write(meta->seq, &r, sizeof(r));
	return 0;
}
