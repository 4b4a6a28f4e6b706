/* Programs that the verifier must refuse, each followed by the same, mended. src/gallery.rs says why. */
#include "trace.h"

static long (*bpf_skb_load_bytes)(void *packet, u32 offset, void *to, u32 size) = (void *)26;

#define CALLS 512
struct counts {
	u64 of[CALLS];
};

struct {
	__uint(type, ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counts);
} counts SEC(".maps");

struct sample {
	u64 time;
	u64 cpu_time;
};

struct {
	__uint(type, HASH);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, struct sample);
} samples SEC(".maps");

struct {
	__uint(type, RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

u64 answer;

SEC("raw_tp/sys_enter")
int loop(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	while (task->pid > 1)
		task = task->real_parent;
	answer = task->pid;
	return 0;
}

SEC("raw_tp/sys_enter")
int loop_mended(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	for (int i = 0; i < 16 && task->pid > 1; i++)
		task = task->real_parent;
	answer = task->pid;
	return 0;
}

SEC("raw_tp/sys_enter")
int bounds(u64 *ctx)
{
	u32 key = 0, nr = ctx[1];
	struct counts *c = bpf_map_lookup_elem(&counts, &key);

	if (c && nr <= CALLS)
		c->of[nr]++;
	return 0;
}

SEC("raw_tp/sys_enter")
int bounds_mended(u64 *ctx)
{
	u32 key = 0, nr = ctx[1];
	struct counts *c = bpf_map_lookup_elem(&counts, &key);

	if (c && nr < CALLS)
		c->of[nr]++;
	return 0;
}

SEC("raw_tp/sys_enter")
int null(u64 *ctx)
{
	u32 key = bpf_get_current_pid_tgid();
	struct sample *s = bpf_map_lookup_elem(&samples, &key);

	s->time = bpf_ktime_get_ns();
	return 0;
}

SEC("raw_tp/sys_enter")
int null_mended(u64 *ctx)
{
	u32 key = bpf_get_current_pid_tgid();
	struct sample *s = bpf_map_lookup_elem(&samples, &key);

	if (s)
		s->time = bpf_ktime_get_ns();
	return 0;
}

SEC("raw_tp/sys_enter")
int pointer(u64 *ctx)
{
	u64 *registers = (void *)ctx[0];

	answer = registers[0];
	return 0;
}

SEC("raw_tp/sys_enter")
int pointer_mended(u64 *ctx)
{
	u64 *registers = (void *)ctx[0];

	bpf_probe_read_kernel(&answer, 8, registers);
	return 0;
}

SEC("socket")
int leak(void *packet)
{
	u32 key = 0;
	struct counts *c = bpf_map_lookup_elem(&counts, &key);

	if (c)
		c->of[0] = (u64)packet;
	return 0;
}

SEC("socket")
int leak_mended(void *packet)
{
	u32 key = 0;
	struct counts *c = bpf_map_lookup_elem(&counts, &key);

	if (c)
		c->of[0]++;
	return 0;
}

SEC("socket")
int stack(void *packet)
{
	u32 key = 0;
	struct sample s;

	s.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&samples, &key, &s, BPF_ANY);
	return 0;
}

SEC("socket")
int stack_mended(void *packet)
{
	u32 key = 0;
	struct sample s = {};

	s.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&samples, &key, &s, BPF_ANY);
	return 0;
}

SEC("raw_tp/sys_enter")
void result(u64 *ctx)
{
	answer++;
}

SEC("raw_tp/sys_enter")
int result_mended(u64 *ctx)
{
	answer++;
	return 0;
}

SEC("raw_tp/sys_enter")
int helper(void *ctx)
{
	u8 byte = 0;

	bpf_skb_load_bytes(ctx, 0, &byte, 1);
	return byte;
}

SEC("socket")
int helper_mended(void *ctx)
{
	u8 byte = 0;

	bpf_skb_load_bytes(ctx, 0, &byte, 1);
	return byte;
}

SEC("raw_tp/sys_enter")
int reference(u64 *ctx)
{
	u64 *event = bpf_ringbuf_reserve(&events, 8, 0);

	if (event)
		*event = ctx[1];
	return 0;
}

SEC("raw_tp/sys_enter")
int reference_mended(u64 *ctx)
{
	u64 *event = bpf_ringbuf_reserve(&events, 8, 0);

	if (event) {
		*event = ctx[1];
		bpf_ringbuf_submit(event, 0);
	}
	return 0;
}
