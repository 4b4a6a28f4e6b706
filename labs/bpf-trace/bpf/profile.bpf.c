/* What each CPU is doing, asked by a clock: a sample is the stacks of the task that it interrupted. */
#include "follow.h"

#define DEPTH 127 /* frames of each stack: /proc/sys/kernel/perf_event_max_stack allows no more unless it is raised */

struct sample {
	u32 tgid;
	u32 tid;
	u64 mm; /* which program the process runs: another one after exec */
	char comm[16];
	u32 kernel; /* bytes of the kernel's stack, which comes first */
	u32 user;
	u64 frames[2 * DEPTH + 2];
};

/* Too large for the stack of a program. */
struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct sample);
} scratch SEC(".maps");

struct {
	__uint(type, RINGBUF);
	__uint(max_entries, 8 << 20);
} samples SEC(".maps");

/* Times that the clock found nothing to run. */
struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} idle SEC(".maps");

SEC("perf_event")
int cpu_clock(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 zero = 0;

	if (!task->pid) {
		u64 *n = bpf_map_lookup_elem(&idle, &zero);
		if (n)
			++*n;
		return 0;
	}
	if (!wanted(task))
		return 0;
	struct sample *s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return 0;
	s->tgid = pid_of(task);
	s->tid = tid_of(task);
	s->mm = (u64)task->mm;
	bpf_probe_read_kernel(s->comm, sizeof(s->comm), task->comm);
	/* An error means that there is none: the task was in its program, or is a thread of the kernel. */
	long kernel = bpf_get_stack(ctx, s->frames, DEPTH * 8, 0);
	if (kernel < 0)
		kernel = 0;
	kernel &= 1023; /* for the verifier: DEPTH * 8 is less */
	long user = bpf_get_stack(ctx, (void *)s->frames + kernel, DEPTH * 8, BPF_F_USER_STACK);
	if (user < 0)
		user = 0;
	user &= 1023;
	s->kernel = kernel;
	s->user = user;
	if (bpf_ringbuf_output(&samples, s, __builtin_offsetof(struct sample, frames) + kernel + user, 0))
		LOSE(ring_full);
	return 0;
}
