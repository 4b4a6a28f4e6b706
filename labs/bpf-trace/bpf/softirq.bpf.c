/* How long each kind of softirq runs. Interrupts that come in between are counted in. */
#include "histogram.h"

#define VECTORS 16 /* the kernel has ten: include/linux/interrupt.h */

/* Softirqs do not nest: one moment for each CPU. */
struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} begun SEC(".maps");

struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, VECTORS);
	__type(key, u32);
	__type(value, struct histogram);
} vectors SEC(".maps");

inline int on_entry(void)
{
	u32 zero = 0;
	u64 *start = bpf_map_lookup_elem(&begun, &zero);

	if (start)
		*start = bpf_ktime_get_ns();
	return 0;
}

inline int on_exit(u32 vector)
{
	u32 zero = 0;
	u64 *start = bpf_map_lookup_elem(&begun, &zero);
	struct histogram *h = bpf_map_lookup_elem(&vectors, &vector);

	/* The first may have begun before the trace did. */
	if (!start || !*start || !h)
		return 0;
	histogram_add(h, bpf_ktime_get_ns() - *start);
	*start = 0;
	return 0;
}

SEC("tp_btf/softirq_entry")
int softirq_entry(u64 *ctx)
{
	return on_entry();
}

SEC("raw_tp/softirq_entry")
int raw_softirq_entry(u64 *ctx)
{
	return on_entry();
}

SEC("tp_btf/softirq_exit")
int softirq_exit(u64 *ctx)
{
	return on_exit(ctx[0]);
}

SEC("raw_tp/softirq_exit")
int raw_softirq_exit(u64 *ctx)
{
	return on_exit(ctx[0]);
}
