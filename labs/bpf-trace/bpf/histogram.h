/* A histogram with four buckets to a power of two: whatever the value, it is known to a fifth. */
#pragma once
#include "trace.h"

#define BUCKETS 160
struct histogram {
	u64 sum;
	u64 max;
	u32 buckets[BUCKETS];
};

inline u32 bucket_of(u64 value)
{
	u64 rest = value;
	u32 log = 0;

	if (value < 8)
		return value; /* 0 to 7 have a bucket each */
	/* BPF has no instruction for it: the logarithm by halves. */
	if (rest >> 32) { log += 32; rest >>= 32; }
	if (rest >> 16) { log += 16; rest >>= 16; }
	if (rest >> 8) { log += 8; rest >>= 8; }
	if (rest >> 4) { log += 4; rest >>= 4; }
	if (rest >> 2) { log += 2; rest >>= 2; }
	if (rest >> 1) log += 1;
	/* The power of two, then the two bits that follow the first. */
	return (log - 1) * 4 + ((value >> (log - 2)) & 3);
}

inline void histogram_add(struct histogram *h, u64 value)
{
	u32 bucket = bucket_of(value);

	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	h->sum += value;
	if (value > h->max)
		h->max = value;
	h->buckets[bucket]++;
}

/* The same where several CPUs may add to one histogram at a time. */
inline void histogram_add_shared(struct histogram *h, u64 value)
{
	u32 bucket = bucket_of(value);
	u64 max;

	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	__sync_fetch_and_add(&h->sum, value);
	__sync_fetch_and_add(&h->buckets[bucket], 1);
	/* Another CPU may come in between, but not for ever. */
	for (int i = 0; i < 16; i++) {
		max = h->max;
		if (value <= max || __sync_val_compare_and_swap(&h->max, max, value) == max)
			break;
	}
}
