/* Counts and times the calls of a function in user space: one program where it is entered, one where it returns. */
#include "follow.h"
#include "histogram.h"

enum by { BY_ALL, BY_PROCESS, BY_THREAD };
const volatile u32 by = BY_PROCESS;
const volatile u32 timing = 1;      /* whether returns are seen: not where the probe is inside of the function */
const volatile u64 slower_than = 0; /* ns; then a call counts when it has returned */

struct calls {
	u64 entered;
	u64 untimed; /* returns whose begin is not known */
};

/* These programs can be preempted, by one of them on the same CPU, too: a copy for each CPU does not save atomics. */
struct {
	__uint(type, PERCPU_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct calls);
} calls SEC(".maps");

struct {
	__uint(type, PERCPU_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct histogram);
} latencies SEC(".maps");

struct name {
	char comm[16];
};

struct {
	__uint(type, HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct name);
} comms SEC(".maps");

/* A call that has begun, known by where the stack was: its return address is there. */
struct frame {
	u64 sp;
	u64 begun;
};

#define DEPTH 64 /* a power of two; the kernel itself sees no more returns of calls in calls (MAX_URETPROBE_DEPTH) */
struct frames {
	u64 depth;
	struct frame of[DEPTH];
};

/* Of each thread, the calls that it is in, outermost first. */
struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct frames);
} frames SEC(".maps");

/* Where uretprobes have functions return to, by process: the first bytes of this area. */
struct xol_area {
	u64 vaddr;
} CORE;

struct uprobes_state {
	struct xol_area *xol_area;
} CORE;

struct mm_struct___uprobes {
	struct uprobes_state uprobes_state;
} CORE;

inline struct calls *calls_of(struct task_struct *task, u32 id)
{
	struct calls *c = bpf_map_lookup_elem(&calls, &id);

	if (!c) {
		struct calls none = {};
		struct name name;

		bpf_probe_read_kernel(&name, sizeof(name), task->comm);
		bpf_map_update_elem(&comms, &id, &name, BPF_ANY);
		bpf_map_update_elem(&calls, &id, &none, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&calls, &id);
		if (!c)
			LOSE(map_full);
	}
	return c;
}

inline u32 id_of(struct task_struct *task)
{
	return by == BY_PROCESS ? pid_of(task) : by == BY_THREAD ? tid_of(task) : 0;
}

/* Forgets calls that were left otherwise than by a return (longjmp, an exception): their stack is gone. A stack grows
 * downwards, so what is alive is above; `also` says that a call at this very place is gone, too. */
inline u64 alive(struct frames *f, u64 sp, int also)
{
	u64 depth = f->depth;

	for (int i = 0; i < DEPTH; i++) {
		if (depth == 0)
			break;
		u64 top = f->of[(depth - 1) & (DEPTH - 1)].sp;
		if (top > sp || (top == sp && !also))
			break;
		depth--;
	}
	return depth;
}

SEC("uprobe")
int enter(struct pt_regs *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!wanted(task))
		return 0;
	if (!slower_than) {
		struct calls *c = calls_of(task, id_of(task));
		if (!c)
			return 0;
		__sync_fetch_and_add(&c->entered, 1);
	}
	if (!timing)
		return 0;
	struct frames *f = bpf_task_storage_get(&frames, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!f)
		return 0;
	/* A function that ends by jumping to this one (a tail call) leaves its own return address to it. If that one was
	 * traced, the address is the kernel's by now, and both calls return at once. */
	u64 sp = ctx->sp, return_to = 0;
	struct xol_area *area = ((struct mm_struct___uprobes *)task->mm)->uprobes_state.xol_area;
	bpf_probe_read_user(&return_to, sizeof(return_to), (void *)sp);
	int tail_call = area && return_to == area->vaddr;
	u64 depth = alive(f, sp, !tail_call);
	if (depth < DEPTH) {
		f->of[depth].sp = sp;
		f->of[depth].begun = bpf_ktime_get_ns();
		depth++;
	}
	f->depth = depth;
	return 0;
}

inline void add(struct histogram *h, u64 ns)
{
	u32 bucket = bucket_of(ns);
	u64 max = h->max;

	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	__sync_fetch_and_add(&h->sum, ns);
	__sync_fetch_and_add(&h->buckets[bucket], 1);
	for (int i = 0; i < 8 && ns > max; i++) {
		u64 seen = __sync_val_compare_and_swap(&h->max, max, ns);
		if (seen == max)
			break;
		max = seen;
	}
}

SEC("uretprobe")
int leave(struct pt_regs *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!wanted(task))
		return 0;
	u64 now = bpf_ktime_get_ns();
	u32 id = id_of(task);
	/* It has popped its return address. */
	u64 sp = ctx->sp - 8;
	struct frames *f = bpf_task_storage_get(&frames, task, 0, 0);
	u64 depth = f ? alive(f, sp, 0) : 0;
	u64 ns = 0, known = 0;
	if (f && depth > 0 && depth <= DEPTH && f->of[depth - 1].sp == sp) {
		ns = now - f->of[depth - 1].begun;
		known = 1;
		depth--;
	}
	if (f)
		f->depth = depth;
	if (slower_than && ns < slower_than)
		return 0;
	struct calls *c = calls_of(task, id);
	if (!c)
		return 0;
	if (slower_than)
		__sync_fetch_and_add(&c->entered, 1);
	if (!known) {
		__sync_fetch_and_add(&c->untimed, 1);
		return 0;
	}
	struct histogram *h = bpf_map_lookup_elem(&latencies, &id);
	if (!h) {
		static const struct histogram none;
		bpf_map_update_elem(&latencies, &id, &none, BPF_NOEXIST);
		h = bpf_map_lookup_elem(&latencies, &id);
		if (!h) {
			LOSE(map_full);
			return 0;
		}
	}
	add(h, ns);
	return 0;
}
