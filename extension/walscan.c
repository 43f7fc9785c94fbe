/*-------------------------------------------------------------------------
 *
 * walscan.c
 *		Walks the WAL from one position to another, record by record.
 *
 * Why not XLogReader: what is wanted of a record is which blocks it names, and
 * now and then its main data.  Decoding the rest, copying the images and
 * checking sums of what this very server wrote a moment ago is most of the cost
 * of reading (doc/performance.md).  So this looks at record headers only and
 * steps over everything else.
 *
 * What is read is checked at each step: the header of every page that is
 * entered (magic, address, timeline), that each record names the one before it,
 * and that the walk ends exactly where it was to end.  Anything else is a
 * problem, named in wal->problem, and never an ERROR: the caller has another way
 * to find out what it wants to know.  Segments may be recycled while they are
 * read; their pages then have other addresses, and testenv_wal_removed() tells.
 *
 * Layout of the WAL: access/xlogrecord.h, access/xlog_internal.h.
 *
 * Locks: none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/standbydefs.h"

#include "testenv.h"

/* Bytes read at once */
#define CHUNK ((Size) 128 * 1024)

/*
 * Longest run of headers after the fixed one: 33 blocks, each with header (4),
 * image header (5), length of a compressed hole (2), locator (12), number (4);
 * then origin (3), top-level transaction (5), length of the main data (5).
 */
#define MAX_HEADERS (33 * 27 + 13)

/* Longest header of one block, down to its locator */
#define MAX_FIRST_HEADER 27

struct TestenvWal
{
	XLogRecPtr	pos;			/* start of the next record */
	XLogRecPtr	end;			/* where to stop */
	XLogRecPtr	prev;			/* start of the record before, if known */
	TimeLineID	timeline;
	const char *problem;		/* why it cannot go on */

	int			fd;				/* of segment segno, or -1 */
	XLogSegNo	segno;
	char	   *chunk;
	XLogRecPtr	chunk_start;
	Size		chunk_len;
	XLogRecPtr	checked;		/* page whose header was looked at last */

	char		headers[MAX_HEADERS];
	char	   *data;			/* main data that spans pages */
	Size		data_size;
};

/*
 * Start a walk.  Both positions are those of the start of a record, as
 * GetXLogInsertRecPtr() gives them, and what lies between has been written out.
 */
TestenvWal *
testenv_wal_begin(XLogRecPtr from, XLogRecPtr to, TimeLineID timeline)
{
	TestenvWal *wal = palloc0(sizeof(TestenvWal));

	wal->pos = from;
	wal->end = to;
	wal->timeline = timeline;
	wal->fd = -1;
	wal->chunk = palloc(CHUNK);
	return wal;
}

/* Ends a walk; returns what was wrong, or NULL. */
const char *
testenv_wal_end(TestenvWal *wal)
{
	const char *problem = wal->problem;

	if (wal->fd >= 0)
		CloseTransientFile(wal->fd);
	if (wal->data != NULL)
		pfree(wal->data);
	pfree(wal->chunk);
	pfree(wal);
	return problem;
}

/* Has the server removed or recycled the segment of a position? */
bool
testenv_wal_removed(XLogRecPtr lsn)
{
	XLogSegNo	segno;

	XLByteToSeg(lsn, segno, wal_segment_size);
	return segno <= XLogGetLastRemovedSegno();
}

static bool
open_segment(TestenvWal *wal, XLogSegNo segno)
{
	char		path[MAXPGPATH];

	if (wal->fd >= 0)
		CloseTransientFile(wal->fd);
	XLogFilePath(path, wal->timeline, segno, wal_segment_size);
	wal->fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	wal->segno = segno;
	if (wal->fd < 0)
		wal->problem = "a segment of the WAL is gone";
	return wal->fd >= 0;
}

/* Read from a page on, at most to the end of its segment or of the walk. */
static bool
read_chunk(TestenvWal *wal, XLogRecPtr page)
{
	uint32		offset = XLogSegmentOffset(page, wal_segment_size);
	XLogSegNo	segno;
	Size		len = CHUNK;
	Size		done = 0;

	XLByteToSeg(page, segno, wal_segment_size);
	if ((wal->fd < 0 || wal->segno != segno) && !open_segment(wal, segno))
		return false;
	len = Min(len, (Size) wal_segment_size - offset);
	len = Min(len, (Size) (TYPEALIGN(XLOG_BLCKSZ, wal->end) - page));

	CHECK_FOR_INTERRUPTS();
	wal->chunk_len = 0;
	while (done < len)
	{
		ssize_t		n = pg_pread(wal->fd, wal->chunk + done, len - done, (off_t) (offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			wal->problem = "a segment of the WAL could not be read";
			return false;
		}
		done += n;
	}
	wal->chunk_start = page;
	wal->chunk_len = len;
	return true;
}

/* The page of the WAL at an address, or NULL. */
static const char *
wal_page(TestenvWal *wal, XLogRecPtr page)
{
	XLogPageHeader header;

	if ((page < wal->chunk_start || page >= wal->chunk_start + wal->chunk_len) &&
		!read_chunk(wal, page))
		return NULL;
	header = (XLogPageHeader) (wal->chunk + (page - wal->chunk_start));
	if (page != wal->checked)
	{
		if (header->xlp_magic != XLOG_PAGE_MAGIC || header->xlp_pageaddr != page ||
			header->xlp_tli != wal->timeline ||
			(header->xlp_info & XLP_FIRST_IS_OVERWRITE_CONTRECORD))
		{
			wal->problem = "a page of the WAL is another one";
			return NULL;
		}
		wal->checked = page;
	}
	return (const char *) header;
}

/* The position n bytes of records later: page headers do not count. */
static XLogRecPtr
advance(XLogRecPtr lsn, Size n)
{
	for (;;)
	{
		Size		left = XLOG_BLCKSZ - lsn % XLOG_BLCKSZ;

		if (n < left)
			return lsn + n;
		n -= left;
		lsn = testenv_lsn_start(lsn + left);
	}
}

/*
 * n bytes of records from a position on: where they lie, if they lie in one
 * page, else copied to "room".
 */
static const char *
wal_bytes(TestenvWal *wal, XLogRecPtr lsn, Size n, char *room)
{
	const char *page = wal_page(wal, lsn - lsn % XLOG_BLCKSZ);
	Size		offset = lsn % XLOG_BLCKSZ;
	char	   *out = room;

	if (page == NULL || offset + n <= XLOG_BLCKSZ)
		return page == NULL ? NULL : page + offset;
	while (n > 0)
	{
		Size		part = Min(n, XLOG_BLCKSZ - lsn % XLOG_BLCKSZ);

		page = wal_page(wal, lsn - lsn % XLOG_BLCKSZ);
		if (page == NULL)
			return NULL;
		memcpy(out, page + lsn % XLOG_BLCKSZ, part);
		out += part;
		n -= part;
		lsn = advance(lsn, part);
	}
	return room;
}

/* Can a record of this resource manager be passed over unread? */
static inline bool
says_nothing(RmgrId rmid, uint8 info)
{
	switch (rmid)
	{
		case RM_CLOG_ID:
		case RM_MULTIXACT_ID:
		case RM_COMMIT_TS_ID:
		case RM_REPLORIGIN_ID:
		case RM_LOGICALMSG_ID:
		case RM_TBLSPC_ID:
		case RM_RELMAP_ID:
			return true;
		case RM_XACT_ID:
			return (info & XLOG_XACT_HAS_INFO) == 0;
		case RM_STANDBY_ID:
			return (info & ~XLR_INFO_MASK) != XLOG_STANDBY_LOCK;
		default:
			return false;
	}
}

/*
 * Read the headers that follow the fixed one: blocks of this database, and how
 * long the main data is.
 */
static bool
read_headers(TestenvWal *wal, TestenvWalRecord *record, const char *p, Size len,
			 uint32 rest)
{
	const char *end = p + len;
	RelFileLocator locator = {0};
	uint64		data = 0;

	record->nblocks = 0;
	record->datalen = 0;
	while (rest > data && p < end)
	{
		uint8		id = *(const uint8 *) p++;
		uint32		step = 1;

		if (id == XLR_BLOCK_ID_DATA_SHORT)
		{
			record->datalen = *(const uint8 *) p;
			return true;
		}
		if (id == XLR_BLOCK_ID_DATA_LONG)
		{
			memcpy(&record->datalen, p, sizeof(uint32));
			return true;
		}
		if (id == XLR_BLOCK_ID_ORIGIN)
		{
			step += sizeof(RepOriginId);
			p += sizeof(RepOriginId);
		}
		else if (id == XLR_BLOCK_ID_TOPLEVEL_XID)
		{
			step += sizeof(TransactionId);
			p += sizeof(TransactionId);
		}
		else if (id <= XLR_MAX_BLOCK_ID && record->nblocks <= XLR_MAX_BLOCK_ID)
		{
			const char *start = p;
			uint8		flags = *(const uint8 *) p++;
			uint16		length;
			BlockNumber block;

			memcpy(&length, p, sizeof(length));
			p += sizeof(length);
			data += length;
			if (flags & BKPBLOCK_HAS_IMAGE)
			{
				uint8		info = *(const uint8 *) (p + 4);

				memcpy(&length, p, sizeof(length));
				p += SizeOfXLogRecordBlockImageHeader;
				data += length;
				if ((info & BKPIMAGE_HAS_HOLE) && BKPIMAGE_COMPRESSED(info))
					p += SizeOfXLogRecordBlockCompressHeader;
			}
			if (!(flags & BKPBLOCK_SAME_REL))
			{
				memcpy(&locator, p, sizeof(locator));
				p += sizeof(locator);
			}
			memcpy(&block, p, sizeof(block));
			p += sizeof(block);
			step += p - start;
			if (locator.dbOid == MyDatabaseId)
			{
				TestenvWalBlock *named = &record->blocks[record->nblocks++];

				named->locator = locator;
				named->fork = flags & BKPBLOCK_FORK_MASK;
				named->block = block;
			}
		}
		else
		{
			wal->problem = "a record of the WAL has an unknown part";
			return false;
		}
		rest -= Min(step, rest);
	}
	return true;
}

/*
 * Are the blocks that a record names in another database?  All are in the same
 * one, so the first tells.  "p" is where the headers start, and enough of them
 * is there.
 */
static inline bool
is_foreign(const char *p)
{
	uint8		flags;
	Oid			database;

	if (*(const uint8 *) p > XLR_MAX_BLOCK_ID)
		return false;
	flags = *(const uint8 *) (p + 1);
	p += sizeof(uint8) + SizeOfXLogRecordBlockHeader - 1;
	if (flags & BKPBLOCK_HAS_IMAGE)
	{
		uint8		info = *(const uint8 *) (p + 4);

		p += SizeOfXLogRecordBlockImageHeader;
		if ((info & BKPIMAGE_HAS_HOLE) && BKPIMAGE_COMPRESSED(info))
			p += SizeOfXLogRecordBlockCompressHeader;
	}
	memcpy(&database, p + sizeof(Oid), sizeof(database));
	return database != MyDatabaseId;
}

/*
 * Pass over records of other databases, and such as say nothing, as far as they
 * lie in the page at hand.  This is most of what there is to read, so it is done
 * with nothing but additions and comparisons.
 */
static void
pass_over(TestenvWal *wal)
{
	uint32		offset = wal->pos % XLOG_BLCKSZ;
	const char *page = wal_page(wal, wal->pos - offset);
	XLogRecPtr	address = wal->pos - offset;

	while (page != NULL && offset + SizeOfXLogRecord + MAX_FIRST_HEADER <= XLOG_BLCKSZ)
	{
		const XLogRecord *fixed = (const XLogRecord *) (page + offset);
		uint32		len = fixed->xl_tot_len;
		uint32		next = offset + MAXALIGN(len);

		if (len < SizeOfXLogRecord + 2 || len > XLOG_BLCKSZ || next >= XLOG_BLCKSZ ||
			address + next > wal->end ||
			(wal->prev != InvalidXLogRecPtr && fixed->xl_prev != wal->prev) ||
			(fixed->xl_info & XLR_SPECIAL_REL_UPDATE) ||
			(fixed->xl_rmid == RM_XLOG_ID &&
			 (fixed->xl_info & ~XLR_INFO_MASK) == XLOG_SWITCH))
			break;
		if (!says_nothing(fixed->xl_rmid, fixed->xl_info) &&
			!is_foreign(page + offset + SizeOfXLogRecord))
			break;
		wal->prev = address + offset;
		offset = next;
		wal->pos = address + offset;
		if (wal->pos >= wal->end)
			break;
	}
}

/*
 * The next record that may say something, or false at the end of the walk and
 * where there is a problem.
 */
bool
testenv_wal_next(TestenvWal *wal, TestenvWalRecord *record)
{
	for (;;)
	{
		XLogRecord	fixed;
		XLogRecPtr	start;
		const char *bytes;
		Size		rest;

		if (wal->pos < wal->end && wal->problem == NULL)
			pass_over(wal);
		if (wal->pos >= wal->end || wal->problem != NULL)
			break;
		start = wal->pos;
		bytes = wal_bytes(wal, start, SizeOfXLogRecord, wal->headers);
		if (bytes == NULL)
			return false;
		memcpy(&fixed, bytes, SizeOfXLogRecord);
		if (fixed.xl_tot_len < SizeOfXLogRecord ||
			(wal->prev != InvalidXLogRecPtr && fixed.xl_prev != wal->prev))
		{
			wal->problem = "a record of the WAL does not follow the one before it";
			return false;
		}
		wal->prev = start;
		rest = fixed.xl_tot_len - SizeOfXLogRecord;
		if (fixed.xl_rmid == RM_XLOG_ID &&
			(fixed.xl_info & ~XLR_INFO_MASK) == XLOG_SWITCH)
		{
			wal->pos = testenv_lsn_start(TYPEALIGN64(wal_segment_size, start));
			continue;
		}
		wal->pos = testenv_lsn_start(MAXALIGN64(advance(start, fixed.xl_tot_len)));
		if (says_nothing(fixed.xl_rmid, fixed.xl_info))
			continue;

		record->lsn = start;
		record->rmid = fixed.xl_rmid;
		record->info = fixed.xl_info;
		record->length = fixed.xl_tot_len;
		bytes = wal_bytes(wal, advance(start, SizeOfXLogRecord), Min(rest, MAX_HEADERS), wal->headers);
		return bytes != NULL &&
			read_headers(wal, record, bytes, Min(rest, MAX_HEADERS), rest);
	}
	if (wal->pos > wal->end && wal->problem == NULL)
		wal->problem = "the WAL does not end where it should";
	return false;
}

/*
 * The main data of the record read last, aligned, or NULL.  Valid until the
 * next call.
 */
const char *
testenv_wal_data(TestenvWal *wal, const TestenvWalRecord *record)
{
	const char *bytes;

	if (wal->data == NULL || wal->data_size < record->datalen)
	{
		if (wal->data != NULL)
			pfree(wal->data);
		wal->data_size = Max(record->datalen, 1024);
		wal->data = MemoryContextAllocHuge(CurrentMemoryContext, wal->data_size);
	}
	bytes = wal_bytes(wal, advance(record->lsn, record->length - record->datalen),
					  record->datalen, wal->data);
	if (bytes != NULL && bytes != wal->data)
		memcpy(wal->data, bytes, record->datalen);
	return bytes == NULL ? NULL : wal->data;
}
