/* In the place of bpf/trace.h: the same names for an ordinary program, which plays the kernel. Tasks, time and maps are
 * the harness's; a program is called as a function. */
#pragma once
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef int32_t s32;
typedef long long s64;

#define SEC(name)
#define inline static inline
#define __uint(name, value) int (*name)[value]
#define __type(name, type) type *name
enum { HASH = 1, ARRAY = 2, PERCPU_HASH = 5, PERCPU_ARRAY = 6, LRU_HASH = 9, RINGBUF = 27, TASK_STORAGE = 29 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2, BPF_F_NO_PREALLOC = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };

struct pt_regs {
	u64 r10, dx, si, di, orig_ax;
};
struct task_struct {
	s32 pid, tgid;
	char comm[16];
};

/* What the harness sets. */
extern struct task_struct now_running;
extern u64 now;
extern u32 only_tgid;
struct { u64 ring_full, map_full, unread; } lost;
#define LOSE(reason) __sync_fetch_and_add(&lost.reason, 1)

inline int wanted(struct task_struct *task)
{
	return !only_tgid || (u32)task->tgid == only_tgid;
}

/* A map is known by its address; sizes come from its description. */
void *map_lookup(void *map, u32 key_size, u32 value_size, u32 entries, const void *key);
long map_update(void *map, u32 key_size, u32 value_size, u32 entries, const void *key, const void *value, u64 flags);
long map_delete(void *map, u32 key_size, const void *key);
#define ENTRIES(m) (sizeof(*(m)->max_entries) / sizeof(int))
#define bpf_map_lookup_elem(m, k) map_lookup((m), sizeof(*(m)->key), sizeof(*(m)->value), ENTRIES(m), (k))
#define bpf_map_update_elem(m, k, v, f) map_update((m), sizeof(*(m)->key), sizeof(*(m)->value), ENTRIES(m), (k), (v), (f))
#define bpf_map_delete_elem(m, k) map_delete((m), sizeof(*(m)->key), (k))
/* Storage of a task is a map by thread. */
#define bpf_task_storage_get(m, t, v, f)                                                                              \
	task_storage((m), sizeof(*(m)->value), ((struct task_struct *)(t))->pid, (v), (f))
void *task_storage(void *map, u32 value_size, u32 tid, void *value, u64 flags);

inline u64 bpf_ktime_get_ns(void) { return now; }
inline void *bpf_get_current_task_btf(void) { return &now_running; }
inline u64 bpf_get_current_pid_tgid(void) { return (u64)now_running.tgid << 32 | (u32)now_running.pid; }
inline long bpf_get_current_comm(void *to, u32 size) { return memcpy(to, now_running.comm, size), 0; }
inline long bpf_probe_read_kernel(void *to, u32 size, const void *from) { return memcpy(to, from, size), 0; }
