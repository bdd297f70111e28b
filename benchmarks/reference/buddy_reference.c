// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page allocator of Linux 6.1 for one node and one CPU, as plain C: what the compiled loops of
 * mmfw.jit are timed against. Written from the rules, not from the loops: zones are structs here, and
 * nothing is shared but the answers, which the benchmark compares before it takes a time.
 *
 * Modelled: orders 0..10, migratetypes with fallback and stealing, watermarks with boost and lowmem
 * reserve, the per-CPU lists with batch, high and free_factor, NR_FREE_PAGES with the CPU's private
 * delta, pgalloc and pgfree. Not modelled: isolation, the highatomic reserve (only the slow path, which
 * is no part of the benchmark, makes one), tracepoints.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ORDERS = 11, TYPES = 5, PCP_TYPES = 3, PCP_LISTS = 14, BLOCK_ORDER = 9, BLOCK = 512, ZONES = 5 };
enum { UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, ISOLATE };
enum { KIND_NONE, KIND_BUDDY, KIND_PCP, KIND_ALLOC };

#define ALLOC_NOFRAGMENT 0x100
#define ALLOC_KSWAPD 0x800
#define SCALE_MAX 5

/* 16 bytes, as mmfw's page: links, a word for the owner, and what the page is. */
struct page {
	uint32_t next, prev, owner;
	uint8_t kind, order, pcp_type, unused;
};

struct pcp {
	int64_t count, high, batch, free_factor;
	uint32_t head[PCP_LISTS];
};

struct zone {
	int64_t start, end, managed;
	int64_t wmark[3], boost, reserve[ZONES];
	int64_t free, free_diff, threshold;
	int64_t nr_free[ORDERS];
	uint32_t head[ORDERS][TYPES];
	struct pcp pcp;
	int boosted, index;
};

struct mm {
	struct page *page;
	uint8_t *block_type;
	uint16_t *block_movable;
	int64_t nr_pfns, boost_factor;
	int64_t pgalloc[ZONES], pgfree;
	int nr_zones;
	struct zone zone[ZONES]; /* populated ones, ascending */
};

static const uint8_t fallbacks[3][2] = {
	{ RECLAIMABLE, MOVABLE }, { RECLAIMABLE, UNMOVABLE }, { UNMOVABLE, MOVABLE }
};

/* --- lists: links are page numbers, heads are entries past the last page ------------------------------ */

static inline int list_empty(const struct page *p, uint32_t head) { return p[head].next == head; }

static inline void list_insert(struct page *p, uint32_t prev, uint32_t next, uint32_t entry)
{
	p[entry].next = next;
	p[entry].prev = prev;
	p[prev].next = entry;
	p[next].prev = entry;
}

static inline void list_add(struct page *p, uint32_t head, uint32_t entry)
{
	list_insert(p, head, p[head].next, entry);
}

static inline void list_add_tail(struct page *p, uint32_t head, uint32_t entry)
{
	list_insert(p, p[head].prev, head, entry);
}

static inline void list_del(struct page *p, uint32_t entry)
{
	p[p[entry].prev].next = p[entry].next;
	p[p[entry].next].prev = p[entry].prev;
}

/* --- the buddy lists ------------------------------------------------------------------------------------ */

static inline int pcp_allowed(int order) { return order <= 3 || order == BLOCK_ORDER; }

static inline void mod_free(struct zone *z, int64_t delta)
{
	int64_t x = z->free_diff + delta;

	if (x > z->threshold || x < -z->threshold) {
		z->free += x;
		x = 0;
	}
	z->free_diff = x;
}

static inline int is_buddy(const struct mm *mm, const struct zone *z, int64_t pfn, int order)
{
	return pfn >= z->start && pfn < z->end && mm->page[pfn].kind == KIND_BUDDY &&
	       mm->page[pfn].order == order;
}

static inline void take_off(struct mm *mm, struct zone *z, int64_t pfn, int order)
{
	list_del(mm->page, pfn);
	mm->page[pfn].kind = KIND_NONE;
	z->nr_free[order]--;
}

static inline void mark_free(struct mm *mm, struct zone *z, int64_t pfn, int order)
{
	mm->page[pfn].kind = KIND_BUDDY;
	mm->page[pfn].order = order;
	z->nr_free[order]++;
}

static void free_one_page(struct mm *mm, struct zone *z, int64_t pfn, int order, int type)
{
	struct page *p = mm->page;
	int tail = 0;

	if (type != ISOLATE)
		mod_free(z, 1 << order);
	for (; order < ORDERS - 1; order++) {
		int64_t buddy = pfn ^ (1 << order);

		if (!is_buddy(mm, z, buddy, order))
			break;
		if (order >= BLOCK_ORDER) {
			int other = mm->block_type[buddy >> BLOCK_ORDER];

			if (other != type && (other >= HIGHATOMIC || type >= HIGHATOMIC))
				break;
		}
		take_off(mm, z, buddy, order);
		pfn &= buddy;
	}
	if (order < ORDERS - 2)
		tail = is_buddy(mm, z, (pfn & ~(1LL << order)) ^ (2LL << order), order + 1);
	mark_free(mm, z, pfn, order);
	if (tail)
		list_add_tail(p, z->head[order][type], pfn);
	else
		list_add(p, z->head[order][type], pfn);
}

static inline int64_t rmqueue_smallest(struct mm *mm, struct zone *z, int order, int type)
{
	struct page *p = mm->page;

	for (int o = order; o < ORDERS; o++) {
		uint32_t head = z->head[o][type];
		int64_t pfn = p[head].next;

		if (pfn == head)
			continue;
		take_off(mm, z, pfn, o);
		while (o > order) {
			o--;
			mark_free(mm, z, pfn + (1 << o), o);
			list_add(p, z->head[o][type], pfn + (1 << o));
		}
		p[pfn].order = order;
		p[pfn].pcp_type = type;
		return pfn;
	}
	return -1;
}

static inline void move_to_tail(struct mm *mm, struct zone *z, int64_t pfn, int order, int type)
{
	list_del(mm->page, pfn);
	list_add_tail(mm->page, z->head[order][type], pfn);
}

static int64_t move_block(struct mm *mm, struct zone *z, int64_t pfn, int type)
{
	int64_t at = pfn & ~(BLOCK - 1LL), last = at + BLOCK - 1, moved = 0;

	if (at < z->start)
		at = pfn;
	if (last >= z->end)
		return 0;
	while (at <= last) {
		int order = mm->page[at].order;

		if (mm->page[at].kind != KIND_BUDDY) {
			at++;
			continue;
		}
		move_to_tail(mm, z, at, order, type);
		at += 1 << order;
		moved += 1 << order;
	}
	return moved;
}

static int boost_watermark(const struct mm *mm, struct zone *z)
{
	int64_t high = z->wmark[2], cap;

	if (!mm->boost_factor || z->managed < 4 * BLOCK)
		return 0;
	cap = high / 10000 * mm->boost_factor + high % 10000 * mm->boost_factor / 10000;
	if (!cap)
		return 0;
	if (cap < BLOCK)
		cap = BLOCK;
	z->boost = z->boost + BLOCK < cap ? z->boost + BLOCK : cap;
	return 1;
}

static int find_fallback(const struct mm *mm, const struct zone *z, int order, int type)
{
	if (!z->nr_free[order] || type > RECLAIMABLE)
		return -1;
	for (int i = 0; i < 2; i++)
		if (!list_empty(mm->page, z->head[order][fallbacks[type][i]]))
			return fallbacks[type][i];
	return -1;
}

static void steal(struct mm *mm, struct zone *z, int64_t pfn, int order, int type, int flags, int whole)
{
	int old = mm->block_type[pfn >> BLOCK_ORDER];
	int64_t moved, alike = 0, movable;

	if (old == HIGHATOMIC)
		goto single;
	if (order >= BLOCK_ORDER) {
		for (int64_t at = pfn; at < pfn + (1 << order); at += BLOCK)
			mm->block_type[at >> BLOCK_ORDER] = type;
		goto single;
	}
	if (boost_watermark(mm, z) && (flags & ALLOC_KSWAPD))
		z->boosted = 1;
	if (!whole)
		goto single;
	moved = move_block(mm, z, pfn, type);
	if (!moved)
		goto single;
	movable = mm->block_movable[pfn >> BLOCK_ORDER];
	if (type == MOVABLE)
		alike = movable;
	else if (old == MOVABLE)
		alike = BLOCK - moved - movable;
	if (moved + alike >= BLOCK / 2)
		mm->block_type[pfn >> BLOCK_ORDER] = type;
	return;
single:
	move_to_tail(mm, z, pfn, order, type);
}

static int rmqueue_fallback(struct mm *mm, struct zone *z, int order, int type, int flags)
{
	int lowest = order < BLOCK_ORDER && (flags & ALLOC_NOFRAGMENT) ? BLOCK_ORDER : order;
	int o, from = -1, whole;

	for (o = ORDERS - 1; o >= lowest; o--)
		if ((from = find_fallback(mm, z, o, type)) >= 0)
			break;
	if (from < 0)
		return 0;
	whole = o >= BLOCK_ORDER / 2 || type != MOVABLE;
	if (!whole && o > order)
		for (o = order; (from = find_fallback(mm, z, o, type)) < 0; o++)
			;
	steal(mm, z, mm->page[z->head[o][from]].next, o, type, flags, whole);
	return 1;
}

static int64_t rmqueue_locked(struct mm *mm, struct zone *z, int order, int type, int flags)
{
	int64_t pfn;

	while ((pfn = rmqueue_smallest(mm, z, order, type)) < 0)
		if (!rmqueue_fallback(mm, z, order, type, flags))
			break;
	return pfn;
}

/* --- the per-CPU lists ---------------------------------------------------------------------------------- */

static inline int pindex_of(int order, int type)
{
	return order == BLOCK_ORDER ? 12 + (type == MOVABLE) : 3 * order + type;
}

static inline int64_t rmqueue_pcplist(struct mm *mm, struct zone *z, int order, int type, int flags)
{
	struct pcp *c = &z->pcp;
	struct page *p = mm->page;
	uint32_t head = c->head[pindex_of(order, type)];
	int64_t pfn;

	c->free_factor >>= 1;
	if (list_empty(p, head)) {
		int64_t want = c->batch, got = 0;

		if (want > 1 && (want >>= order) < 2)
			want = 2;
		for (; got < want; got++) {
			pfn = rmqueue_locked(mm, z, order, type, flags);
			if (pfn < 0)
				break;
			p[pfn].kind = KIND_PCP;
			list_add_tail(p, head, pfn);
		}
		mod_free(z, -(got << order));
		c->count += got << order;
		if (!got)
			return -1;
	}
	pfn = p[head].next;
	list_del(p, pfn);
	c->count -= 1 << order;
	return pfn;
}

static void free_bulk(struct mm *mm, struct zone *z, int64_t n, int pindex)
{
	struct pcp *c = &z->pcp;
	struct page *p = mm->page;
	int low = 0, high = PCP_LISTS - 1;

	if (n > c->count)
		n = c->count;
	pindex--;
	while (n > 0) {
		uint32_t head;
		int order;

		for (;;) {
			if (++pindex > high)
				pindex = low;
			head = c->head[pindex];
			if (!list_empty(p, head))
				break;
			if (pindex == high)
				high--;
			if (pindex == low)
				low++;
		}
		order = pindex >= 12 ? BLOCK_ORDER : pindex / 3;
		do {
			uint32_t pfn = p[head].prev;

			list_del(p, pfn);
			n -= 1 << order;
			c->count -= 1 << order;
			p[pfn].kind = KIND_NONE;
			free_one_page(mm, z, pfn, order, p[pfn].pcp_type);
		} while (n > 0 && !list_empty(p, head));
	}
}

static inline void free_to_pcp(struct mm *mm, struct zone *z, int64_t pfn, int order, int type)
{
	struct pcp *c = &z->pcp;
	int pindex = pindex_of(order, type < PCP_TYPES ? type : MOVABLE);
	int free_high = c->free_factor > 0 && order >= 1 && order <= 3;
	int64_t high = free_high ? 0 : c->high, n, most;

	mm->page[pfn].kind = KIND_PCP;
	mm->page[pfn].pcp_type = type;
	list_add(mm->page, c->head[pindex], pfn);
	c->count += 1 << order;
	if (c->count < high)
		return;
	if (free_high) {
		n = c->count;
	} else if (high < c->batch) {
		n = 1;
	} else {
		most = high - c->batch;
		n = c->batch << c->free_factor;
		if (n < most && c->free_factor < SCALE_MAX)
			c->free_factor++;
		if (n < c->batch)
			n = c->batch;
		if (n > most)
			n = most;
	}
	free_bulk(mm, z, n, pindex);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int watermark_ok(const struct mm *mm, const struct zone *z, int order, int64_t mark, int hzi)
{
	int64_t floor = mark + z->reserve[hzi];

	if (z->free - ((1 << order) - 1) <= floor)
		return 0;
	if (order == 0)
		return 1;
	for (int o = order; o < ORDERS; o++) {
		if (!z->nr_free[o])
			continue;
		for (int type = 0; type < PCP_TYPES; type++)
			if (!list_empty(mm->page, z->head[o][type]))
				return 1;
	}
	return 0;
}

static inline int64_t rmqueue(struct mm *mm, struct zone *z, int order, int type, int flags)
{
	int64_t pfn = -1;

	if (pcp_allowed(order))
		pfn = rmqueue_pcplist(mm, z, order, type, flags);
	if (pfn < 0) {
		pfn = rmqueue_locked(mm, z, order, type, flags);
		if (pfn >= 0)
			mod_free(z, -(1 << order));
	}
	if (z->boosted)
		z->boosted = 0; /* wakeup_kswapd(): nobody sleeps here */
	return pfn;
}

static int64_t get_page(struct mm *mm, int order, int type, int hzi, int flags)
{
	for (;;) {
		for (int i = mm->nr_zones - 1; i >= 0; i--) {
			struct zone *z = &mm->zone[i];
			int64_t pfn;

			if (z->index > hzi || !watermark_ok(mm, z, order, z->wmark[flags & 3] + z->boost, hzi))
				continue;
			pfn = rmqueue(mm, z, order, type, flags);
			if (pfn >= 0) {
				mm->page[pfn].kind = KIND_ALLOC;
				mm->pgalloc[z->index] += 1 << order;
				return pfn;
			}
		}
		if (!(flags & ALLOC_NOFRAGMENT))
			return -1;
		flags &= ~ALLOC_NOFRAGMENT;
	}
}

static int free_page_block(struct mm *mm, int64_t pfn, int order)
{
	struct zone *z = mm->zone;
	int type;

	if (pfn < 0 || pfn >= mm->nr_pfns || mm->page[pfn].kind != KIND_ALLOC || mm->page[pfn].order != order)
		return 0;
	while (pfn >= z->end)
		z++;
	mm->pgfree += 1 << order;
	type = mm->block_type[pfn >> BLOCK_ORDER];
	mm->page[pfn].kind = KIND_NONE;
	if (pcp_allowed(order) && type != ISOLATE)
		free_to_pcp(mm, z, pfn, order, type);
	else
		free_one_page(mm, z, pfn, order, type);
	return 1;
}

/* --- what the benchmark calls ----------------------------------------------------------------------------- */

struct mm *ref_create(int64_t nr_pfns, int64_t boost_factor)
{
	size_t huge = 1 << 21, size = (nr_pfns + ZONES * (ORDERS * TYPES + PCP_LISTS)) * sizeof(struct page);
	struct mm *mm = calloc(1, sizeof(*mm));

	mm->nr_pfns = nr_pfns;
	mm->boost_factor = boost_factor;
	/* Huge pages, as numpy asks for: without them the TLB is what is timed. */
	size = (size + huge - 1) & ~(huge - 1);
	mm->page = aligned_alloc(huge, size);
	madvise(mm->page, size, MADV_HUGEPAGE);
	memset(mm->page, 0, size);
	mm->block_type = calloc((nr_pfns >> BLOCK_ORDER) + 1, sizeof(*mm->block_type));
	mm->block_movable = calloc((nr_pfns >> BLOCK_ORDER) + 1, sizeof(*mm->block_movable));
	return mm;
}

void ref_destroy(struct mm *mm)
{
	free(mm->page);
	free(mm->block_type);
	free(mm->block_movable);
	free(mm);
}

/* v: index, start, end, managed, wmark[3], boost, reserve[5], free, free_diff, threshold, high, batch */
void ref_add_zone(struct mm *mm, const int64_t *v)
{
	struct zone *z = &mm->zone[mm->nr_zones];
	uint32_t head = mm->nr_pfns + mm->nr_zones++ * (ORDERS * TYPES + PCP_LISTS);

	z->index = *v++;
	z->start = *v++;
	z->end = *v++;
	z->managed = *v++;
	for (int i = 0; i < 3; i++)
		z->wmark[i] = *v++;
	z->boost = *v++;
	for (int i = 0; i < ZONES; i++)
		z->reserve[i] = *v++;
	z->free = *v++;
	z->free_diff = *v++;
	z->threshold = *v++;
	z->pcp.high = *v++;
	z->pcp.batch = *v++;
	for (int i = 0; i < ORDERS * TYPES + PCP_LISTS; i++, head++) {
		mm->page[head].next = mm->page[head].prev = head;
		if (i < ORDERS * TYPES)
			z->head[i / TYPES][i % TYPES] = head;
		else
			z->pcp.head[i - ORDERS * TYPES] = head;
	}
}

/* Types of the pageblocks from a pfn on; a block that two zones share takes the later one's. */
void ref_block_types(struct mm *mm, int64_t pfn, const uint8_t *types, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		mm->block_type[(pfn >> BLOCK_ORDER) + i] = types[i];
}

/* Blocks of the zone added last, list head first. */
void ref_add_free(struct mm *mm, int order, int type, const int64_t *pfns, int64_t n)
{
	struct zone *z = &mm->zone[mm->nr_zones - 1];

	for (int64_t i = 0; i < n; i++) {
		mark_free(mm, z, pfns[i], order);
		list_add_tail(mm->page, z->head[order][type], pfns[i]);
	}
}

/*
 * Operations: bit 0 free, bits 1-4 order, bits 5-6 row of classes, bits 8-31 which held block to free, as
 * a fraction of those held. classes has rows of gfp mask, migratetype, highest zone index, ALLOC_* flags.
 * held[0] is the number of held blocks, which follow as pfn * 16 + order. The first nr_out answers go to
 * out. Returns operations done; fewer than nr_ops if a block was refused.
 */
int64_t ref_run(struct mm *mm, const uint32_t *ops, int64_t nr_ops, const int64_t *classes, int64_t *held,
		int64_t *out, int64_t nr_out)
{
	int64_t nr = held[0], i;

	for (i = 0; i < nr_ops; i++) {
		uint32_t op = ops[i];
		int64_t pfn = -1;

		if (op & 1) {
			if (nr > 0) {
				int64_t k = 1 + ((int64_t)(op >> 8) * nr >> 24), h = held[k];

				held[k] = held[nr--];
				pfn = h >> 4;
				if (!free_page_block(mm, pfn, h & 15))
					break;
			}
		} else {
			int order = op >> 1 & 15;
			const int64_t *c = classes + 4 * (op >> 5 & 3);

			pfn = get_page(mm, order, c[1], c[2], c[3]);
			if (pfn >= 0)
				held[++nr] = pfn << 4 | order;
		}
		if (i < nr_out)
			out[i] = pfn;
	}
	held[0] = nr;
	return i;
}

/* v: per zone free, free_diff, pcp count, free_factor, boost, nr_free[11]; then pgfree, pgalloc[5] */
void ref_counters(const struct mm *mm, int64_t *v)
{
	for (int i = 0; i < mm->nr_zones; i++) {
		const struct zone *z = &mm->zone[i];

		*v++ = z->free;
		*v++ = z->free_diff;
		*v++ = z->pcp.count;
		*v++ = z->pcp.free_factor;
		*v++ = z->boost;
		for (int o = 0; o < ORDERS; o++)
			*v++ = z->nr_free[o];
	}
	*v++ = mm->pgfree;
	for (int i = 0; i < ZONES; i++)
		*v++ = mm->pgalloc[i];
}
