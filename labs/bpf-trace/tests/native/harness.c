/* Plays the kernel for a program in C: reads what happens, a line each, and prints what the map `waits` holds then.
 *
 *   task TGID TID NS    from now on this thread runs, and it is that time
 *   only TGID           trace this process only
 *   enter NR A B        it enters call NR with these two first arguments
 *   exit NR RET         it returns from it
 */
#include <stdio.h>
#include <stdlib.h>

#include PROGRAM

struct task_struct now_running;
u64 now;
u32 only_tgid;

struct entry {
	void *map;
	u8 key[64], value[64];
	u32 used;
};
static struct entry entries[4096];

static struct entry *find(void *map, u32 key_size, const void *key)
{
	for (u32 i = 0; i < 4096; i++)
		if (entries[i].used && entries[i].map == map && !memcmp(entries[i].key, key, key_size))
			return &entries[i];
	return 0;
}

void *map_lookup(void *map, u32 key_size, u32 value_size, u32 max, const void *key)
{
	struct entry *e = find(map, key_size, key);
	return e ? e->value : 0;
}

long map_update(void *map, u32 key_size, u32 value_size, u32 max, const void *key, const void *value, u64 flags)
{
	struct entry *e = find(map, key_size, key);
	u32 there = 0, free = 4096;

	if (key_size > 64 || value_size > 64) {
		fprintf(stderr, "keys and values of at most 64 bytes\n");
		exit(3);
	}
	if (e && flags == BPF_NOEXIST)
		return -17; /* EEXIST */
	for (u32 i = 0; i < 4096 && !e; i++) {
		there += entries[i].used && entries[i].map == map;
		if (!entries[i].used && free == 4096)
			free = i;
	}
	if (!e) {
		if (there >= max || free == 4096)
			return -7; /* E2BIG */
		e = &entries[free];
		e->map = map;
		e->used = 1;
		memcpy(e->key, key, key_size);
	}
	memcpy(e->value, value, value_size);
	return 0;
}

long map_delete(void *map, u32 key_size, const void *key)
{
	struct entry *e = find(map, key_size, key);
	if (!e)
		return -2; /* ENOENT */
	memset(e, 0, sizeof(*e));
	return 0;
}

void *task_storage(void *map, u32 value_size, u32 tid, void *value, u64 flags)
{
	u8 zero[64] = {};
	if (!find(map, 4, &tid) && flags)
		map_update(map, 4, value_size, 4096, &tid, value ? value : zero, BPF_ANY);
	struct entry *e = find(map, 4, &tid);
	return e ? e->value : 0;
}

int main(void)
{
	char line[256];

	while (fgets(line, sizeof(line), stdin)) {
		u64 a, b, c;
		if (sscanf(line, "task %llu %llu %llu", &a, &b, &c) == 3) {
			now_running.tgid = a;
			now_running.pid = b;
			now = c;
		} else if (sscanf(line, "only %llu", &a) == 1) {
			only_tgid = a;
		} else if (sscanf(line, "enter %llu %llu %llu", &a, &b, &c) == 3) {
			struct pt_regs regs = { .orig_ax = a, .di = b, .si = c };
			u64 ctx[2] = { (u64)&regs, a };
			sys_enter(ctx);
		} else if (sscanf(line, "exit %llu %lld", &a, (s64 *)&b) == 2) {
			struct pt_regs regs = { .orig_ax = a };
			u64 ctx[2] = { (u64)&regs, b };
			sys_exit(ctx);
		}
	}
	for (u32 i = 0; i < 4096; i++) {
		struct key *key = (void *)entries[i].key;
		struct waits *w = (void *)entries[i].value;
		if (entries[i].used && entries[i].map == (void *)&waits)
			printf("%u %llu %llu %llu\n", key->tgid, key->address, w->count, w->ns);
	}
	printf("lost %llu\n", lost.map_full);
	return 0;
}
