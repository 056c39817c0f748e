/* Where the members of the first table lie, on 64 bits. Compiled with the first header and with today's: no line of this file ever
 * changes, new members go below in a part of their own. */
#include <rtpool/rtpool.h>

#define HOLDS(name, condition) typedef char name[(condition) ? 1 : -1]
#define AT(member, offset) HOLDS(rtpool_api_##member, offsetof(rtpool_api, member) == (offset))
#define COUNTS(member, place) HOLDS(rtpool_stats_##member, offsetof(rtpool_stats, member) == 8 * (place))

HOLDS(abi, RTPOOL_ABI == 1);
AT(abi, 0);
AT(size, 4);
AT(version, 8);
AT(allocate, 16);
AT(allocate_zeroed, 24);
AT(allocate_aligned, 32);
AT(resize, 40);
AT(release, 48);
AT(usable_size, 56);
AT(owner, 64);
AT(default_pool, 72);
AT(active_pool, 80);
AT(current_pool, 88);
AT(retain_pool, 96);
AT(release_pool, 104);
AT(pool_name, 112);
AT(get_stats, 120);
AT(trim, 128);
AT(pool_from_object, 136);
AT(object_from_pool, 144);
HOLDS(table_grows, sizeof(rtpool_api) >= 152);

COUNTS(current_bytes, 0);
COUNTS(current_count, 1);
COUNTS(peak_bytes, 2);
COUNTS(peak_count, 3);
COUNTS(total_bytes, 4);
COUNTS(total_count, 5);
COUNTS(requested_bytes, 6);
COUNTS(capacity_bytes, 7);
COUNTS(resident_bytes, 8);
COUNTS(hits, 9);
COUNTS(misses, 10);
COUNTS(growths, 11);
COUNTS(kernel_calls, 12);
COUNTS(returned_bytes, 13);
COUNTS(fallbacks, 14);
COUNTS(failures, 15);
COUNTS(remote_frees, 16);
COUNTS(misuses, 17);
COUNTS(largest_free_bytes, 18);
COUNTS(fallback_count, 19);
COUNTS(object_bytes, 20);
COUNTS(object_count, 21);
COUNTS(object_peak_bytes, 22);
COUNTS(object_kept_bytes, 23);
COUNTS(object_hits, 24);
COUNTS(object_misses, 25);
COUNTS(object_fallbacks, 26);
HOLDS(stats_grow, sizeof(rtpool_stats) >= 8 * 27);

/* The types, too. */
HOLDS(abi_type, sizeof(((rtpool_api *)0)->abi) == 4);

void *call_all(const rtpool_api *api, rtpool_pool *pool, const rtpool_stats *stats);
void *call_all(const rtpool_api *api, rtpool_pool *pool, const rtpool_stats *stats) {
  void *(*allocate)(rtpool_pool *, size_t) = api->allocate;
  void *(*allocate_zeroed)(rtpool_pool *, size_t) = api->allocate_zeroed;
  void *(*allocate_aligned)(rtpool_pool *, size_t, size_t) = api->allocate_aligned;
  void *(*resize)(rtpool_pool *, void *, size_t) = api->resize;
  void (*release)(rtpool_pool *, void *, size_t) = api->release;
  size_t (*usable_size)(rtpool_pool *, const void *) = api->usable_size;
  rtpool_pool *(*owner)(const void *) = api->owner;
  rtpool_pool *(*default_pool)(void) = api->default_pool;
  rtpool_pool *(*active_pool)(void) = api->active_pool;
  rtpool_pool *(*current_pool)(void) = api->current_pool;
  rtpool_pool *(*retain_pool)(rtpool_pool *) = api->retain_pool;
  void (*release_pool)(rtpool_pool *) = api->release_pool;
  const char *(*pool_name)(rtpool_pool *) = api->pool_name;
  size_t (*get_stats)(rtpool_pool *, rtpool_stats *, size_t) = api->get_stats;
  size_t (*trim)(rtpool_pool *, uint64_t) = api->trim;
  rtpool_pool *(*pool_from_object)(void *) = api->pool_from_object;
  void *(*object_from_pool)(rtpool_pool *) = api->object_from_pool;
  uint64_t count = stats->object_fallbacks;
  (void)allocate, (void)allocate_zeroed, (void)allocate_aligned, (void)resize, (void)release, (void)usable_size, (void)owner;
  (void)default_pool, (void)active_pool, (void)current_pool, (void)retain_pool, (void)release_pool, (void)pool_name;
  (void)get_stats, (void)trim, (void)pool_from_object, (void)count;
  return object_from_pool(pool);
}
