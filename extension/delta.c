/*-------------------------------------------------------------------------
 *
 * delta.c
 *		What has to be logged so that recovery makes a page equal to its image.
 *
 * A full-page image of a page of which a test changed one row is mostly what
 * recovery has anyway, and was most of the WAL that a restore wrote.  The
 * server's generic records (generic_xlog.c) carry pieces of a page instead: an
 * offset, a length, the bytes, as often as needed; redo copies them into the page
 * and clears the hole between pd_lower and pd_upper.  The server itself puts a
 * full-page image in their place for a page's first change after a checkpoint.
 *
 * Which bytes may be left out?  Not those in which the page before us is equal to
 * the image, because recovery's page need not be equal to ours: the server sets
 * some bytes without WAL, or replays them as others.  What it promises, and
 * checks with wal_consistency_checking, is in the mask functions of its access
 * methods (heap_mask, btree_mask, hash_mask): all but the hole, the hints in the
 * page's header, hint bits, command ids and t_ctid of tuples, the padding behind
 * them, dead marks of line pointers, flags of an index page's special space.
 * So only these bytes count as known: of a heap tuple that is on our page its
 * xmin and xmax and what follows its header, of an index tuple all of it; and line
 * pointers, of an index only if none of the page's is dead.  Tuples must lie
 * without a gap between pd_upper and pd_special, as everything in bufpage.c leaves
 * them.  A known byte that is equal to the image's is left out.  Every other one
 * is logged, whatever our page has there: some 20 to 32 bytes for each row of a
 * heap page, and next to nothing for an index page.
 *
 * Pages without tuples, as metapages and bitmaps are, have no known bytes.  For
 * access methods that need not keep pd_lower and pd_upper there are no deltas.
 *
 * Locks: the caller holds the page's buffer locked exclusively.
 *
 * Not protected against: a server that replays a tuple's bytes as others than it
 * wrote.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "storage/bufpage.h"

#include "testenv.h"

/* A piece: where it goes, and how long it is. */
#define PIECE_HEADER (2 * sizeof(OffsetNumber))

/* pd_lsn and pd_checksum are not for us to set */
#define FIRST_BYTE offsetof(PageHeaderData, pd_flags)

/* What we go through a page by */
#define WORD ((int) sizeof(uint64))

/* Of a heap tuple's header, what is not known: from t_cid to t_hoff */
#define UNKNOWN_FROM offsetof(HeapTupleHeaderData, t_choice.t_heap.t_field3)
#define UNKNOWN_TO MAXALIGN(SizeofHeapTupleHeader)

typedef struct Delta
{
	const char *page;
	const char *image;
	char	   *bytes;
	int			length;
	int			room;
	bool		full;			/* it did not fit */
} Delta;

/* Can we rely on the page's header, and go through the page by words? */
static bool
well_formed(const PageHeaderData *page)
{
	return page->pd_lower >= SizeOfPageHeaderData &&
		page->pd_lower <= page->pd_upper &&
		page->pd_upper <= page->pd_special &&
		page->pd_special <= BLCKSZ &&
		page->pd_upper % WORD == 0 && page->pd_special % WORD == 0;
}

/*
 * Do the tuples of a page fill the space between pd_upper and pd_special?  Says
 * as well whether a line pointer is dead.
 */
static bool
tuples_fill_page(const PageHeaderData *page, bool heap, bool *dead)
{
	OffsetNumber max = PageGetMaxOffsetNumber((Page) page);
	int			filled = 0;
	int			odd = 0;
	int			ndead = 0;
	OffsetNumber offset;

	for (offset = FirstOffsetNumber; offset <= max; offset++)
	{
		const ItemIdData *item = PageGetItemId((Page) page, offset);

		filled += MAXALIGN(ItemIdGetLength(item));
		odd |= ItemIdGetLength(item);
		ndead += ItemIdIsDead(item);
	}
	*dead = ndead > 0;
	return filled == page->pd_special - page->pd_upper && (heap || odd % WORD == 0);
}

/* Add a piece of the image. */
static void
add_piece(Delta *delta, int first, int end)
{
	OffsetNumber piece[2];

	if (first >= end)
		return;
	piece[0] = first;
	piece[1] = end - first;
	if (delta->length + (int) PIECE_HEADER + piece[1] > delta->room)
	{
		delta->full = true;
		return;
	}
	memcpy(delta->bytes + delta->length, piece, PIECE_HEADER);
	memcpy(delta->bytes + delta->length + PIECE_HEADER, delta->image + first, piece[1]);
	delta->length += PIECE_HEADER + piece[1];
}

/* Add what differs between two offsets, all of which is known. */
static void
add_differences(Delta *delta, int first, int end)
{
	const uint64 *have = (const uint64 *) delta->page;
	const uint64 *want = (const uint64 *) delta->image;
	int			word = first / WORD;
	int			last = end / WORD;

	while (!delta->full)
	{
		int			begin;

		/* most of a page is equal */
		while (word + 4 <= last &&
			   ((have[word] ^ want[word]) | (have[word + 1] ^ want[word + 1]) |
				(have[word + 2] ^ want[word + 2]) | (have[word + 3] ^ want[word + 3])) == 0)
			word += 4;
		while (word < last && have[word] == want[word])
			word++;
		if (word >= last)
			break;
		begin = word;
		while (word < last && have[word] != want[word])
			word++;
		add_piece(delta, begin * WORD, word * WORD);
	}
}

/* Of each heap tuple on our page, add what lies there and is not known. */
static void
add_headers(Delta *delta, int upper)
{
	OffsetNumber max = PageGetMaxOffsetNumber((Page) delta->page);
	OffsetNumber offset;

	for (offset = FirstOffsetNumber; offset <= max && !delta->full; offset++)
	{
		const ItemIdData *item = PageGetItemId((Page) delta->page, offset);
		int			first = ItemIdGetOffset(item);
		int			end = first + ItemIdGetLength(item);

		if (!ItemIdHasStorage(item))
			continue;
		add_piece(delta, Max(first + (int) UNKNOWN_FROM, upper), first + (int) UNKNOWN_TO);
		if (end % WORD != 0)
			add_piece(delta, Max(end, upper), TYPEALIGN(WORD, end));
	}
}

/* Change a page by a delta, as redo does, but for the hole. */
void
testenv_delta_apply(char *page, const char *bytes, int length)
{
	const char *end = bytes + length;

	while (bytes < end)
	{
		OffsetNumber piece[2];

		memcpy(piece, bytes, PIECE_HEADER);
		memcpy(page + piece[0], bytes + PIECE_HEADER, piece[1]);
		bytes += PIECE_HEADER + piece[1];
	}
}

#ifdef USE_ASSERT_CHECKING
static void
invert(char *page, int first, int end)
{
	for (; first < end; first++)
		page[first] = ~page[first];
}

/*
 * Does the delta make the image of the page that recovery may have?  That one is
 * as far from ours as the mask functions allow.
 */
static bool
delta_is_sound(const char *page, const char *image, bool heap,
			   const char *bytes, int length)
{
	const PageHeaderData *header = (const PageHeaderData *) page;
	OffsetNumber max = PageGetMaxOffsetNumber((Page) page);
	PGAlignedBlock recovered;
	OffsetNumber offset;

	memcpy(recovered.data, page, BLCKSZ);
	invert(recovered.data, header->pd_lower, header->pd_upper);
	invert(recovered.data, header->pd_special, BLCKSZ);
	((PageHeader) recovered.data)->pd_prune_xid ^= 1;
	((PageHeader) recovered.data)->pd_flags ^= PD_PAGE_FULL | PD_HAS_FREE_LINES;
	for (offset = FirstOffsetNumber; offset <= max; offset++)
	{
		ItemId		item = PageGetItemId((Page) recovered.data, offset);
		int			first = ItemIdGetOffset(item);
		int			end = first + ItemIdGetLength(item);

		if (!heap && ItemIdIsDead(item))
			item->lp_flags = LP_NORMAL;
		if (!heap || !ItemIdHasStorage(item))
			continue;
		invert(recovered.data, first + offsetof(HeapTupleHeaderData, t_choice.t_heap.t_field3),
			   first + offsetof(HeapTupleHeaderData, t_hoff));
		invert(recovered.data, end, MAXALIGN(end));
	}
	testenv_delta_apply(recovered.data, bytes, length);
	return testenv_same_page(recovered.data, image, true);
}
#endif

/*
 * Write the delta that makes of recovery's version of a page its image to
 * "bytes".  Returns its length, or -1 if it is not worth it, that is longer than
 * "room" or than half of the image, or if it cannot be had.  The page and the
 * image are of a heap, or else of a btree or hash index.
 */
int
testenv_delta(const char *page, const char *image, bool heap, char *bytes, int room)
{
	const PageHeaderData *old = (const PageHeaderData *) page;
	const PageHeaderData *new = (const PageHeaderData *) image;
	Delta		delta;
	bool		dead;
	int			lower;
	int			pointers;

	if (PageIsNew((Page) page) || PageIsNew((Page) image) ||
		!well_formed(old) || !well_formed(new) || old->pd_special != new->pd_special ||
		old->pd_upper == old->pd_special || !tuples_fill_page(old, heap, &dead))
		return -1;
	delta.page = page;
	delta.image = image;
	delta.bytes = bytes;
	delta.length = 0;
	delta.room = Min(room, (new->pd_lower + BLCKSZ - new->pd_upper) / 2);
	delta.full = false;

	/* header and line pointers; redo clears what is behind pd_lower */
	lower = TYPEALIGN(WORD, new->pd_lower);
	pointers = dead && !heap ? (int) SizeOfPageHeaderData :
		Min(lower, (int) TYPEALIGN_DOWN(WORD, old->pd_lower));
	add_piece(&delta, FIRST_BYTE, SizeOfPageHeaderData);
	add_differences(&delta, SizeOfPageHeaderData, pointers);
	add_piece(&delta, pointers, lower);

	/* tuples, where there are some on our page; the rest was its hole */
	add_piece(&delta, new->pd_upper, Min(old->pd_upper, new->pd_special));
	add_differences(&delta, Max(new->pd_upper, old->pd_upper), new->pd_special);
	if (heap)
		add_headers(&delta, new->pd_upper);
	add_piece(&delta, new->pd_special, BLCKSZ);
	Assert(delta.full || delta_is_sound(page, image, heap, bytes, delta.length));
	return delta.full ? -1 : delta.length;
}
