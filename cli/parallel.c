/*-------------------------------------------------------------------------
 *
 * parallel.c
 *		Works on many databases at the same time: one process, one thread, one
 *		loop around poll().
 *
 * Each target walks through the steps of the work by itself: connect, then for
 * each step send a query, collect its answer, judge it.  A target that fails
 * ends alone.  At most --jobs connections are open at a time.
 *
 * Where the work may be repeated ("wait"), a target that fails begins again a
 * little later, until the time is up.
 *
 * When Ctrl-C was pressed, no step is begun any more: connections in the making
 * are given up, running queries are cancelled, and their answers waited for.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define RETRY_US 100000			/* how long until a target begins again */
#define TICK_US 200000			/* how often the progress line is written */
#define PATIENCE_US 1000000		/* what takes longer has a progress line */

typedef struct Loop
{
	const List *targets;
	const Work *work;
	struct pollfd *fds;
	int64_t		began;			/* when the user began to wait */
	bool		stopping;
} Loop;

static bool
is_active(const Target *target)
{
	return target->state == TARGET_CONNECTING || target->state == TARGET_BUSY;
}

static bool
is_over(const Target *target)
{
	return !is_active(target) && target->state != TARGET_NEW && target->state != TARGET_RETRY;
}

/* The target has failed: for good, or until the next try? */
static void
settle_failure(Target *target, const Work *work)
{
	bool		again = work->retry_until > now_us() && !interrupted();
	const char *text = target->failure.whole;

	if (again)
	{
		/* the same words every tenth of a second help nobody */
		if (target->options->verbose && (target->shown == NULL || strcmp(target->shown, text) != 0))
		{
			show_target(target, text);
			free(target->shown);
			target->shown = xstrdup(text);
		}
		restart_target(target);
		target->state = TARGET_RETRY;
		target->retry_at = now_us() + RETRY_US;
		return;
	}
	target->ended = now_us();
	if (!target->keep_open)
		close_connection(target);
	show_target(target, text);
}

static void
end_target(Target *target, TargetState state)
{
	if (state == TARGET_DONE)
		clear_failure(&target->failure);
	target->state = state;
	target->ended = now_us();
}

/*
 * The servers' processes take a while to end, and would take it from those that
 * still work for us.  So connections are closed when all is done, unless others
 * wait for their turn.
 */
static void
close_ended(const Loop *loop, bool all_done)
{
	int			i;

	for (i = 0; i < loop->targets->count; i++)
	{
		Target	   *target = loop->targets->items[i];

		if (target->conn != NULL && is_over(target) && !target->keep_open &&
			(all_done || loop->targets->count > target->options->jobs))
			close_connection(target);
	}
}

/* Begin the first step from target->step on that has something to send. */
static void
begin_step(Target *target, const Work *work)
{
	while (target->state != TARGET_FAILED && target->step < work->nsteps)
	{
		if (interrupted())
		{
			end_target(target, TARGET_CANCELLED);
			return;
		}
		target->state = TARGET_BUSY;
		if (work->steps[target->step]->send(target))
			return;
		if (target->state != TARGET_FAILED && PQstatus(target->conn) == CONNECTION_BAD)
			fail_connection(target, PQerrorMessage(target->conn));
		target->step++;
	}
	if (target->state == TARGET_FAILED)
		settle_failure(target, work);
	else
		end_target(target, TARGET_DONE);
}

static bool
is_error(const PGresult *answer)
{
	ExecStatusType status = PQresultStatus(answer);

	return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/* The answer of a step is complete. */
static void
finish_step(Target *target, const Work *work)
{
	const Step *step = work->steps[target->step];
	PGresult   *answer = target->pending;
	const char *sqlstate = PQresultErrorField(answer, PG_DIAG_SQLSTATE);

	target->pending = NULL;
	PQclear(target->answers[target->step]);
	target->answers[target->step] = answer;
	if (answer == NULL)
		fail_connection(target, PQerrorMessage(target->conn));
	else if (is_error(answer) && target->canceled && sqlstate != NULL && strcmp(sqlstate, "57014") == 0)
	{
		fail_server(target, answer);
		end_target(target, TARGET_CANCELLED);
		return;
	}
	else if (is_error(answer) && (!step->tolerant || PQstatus(target->conn) == CONNECTION_BAD))
		fail_server(target, answer);
	else if (step->check != NULL && !step->check(target, answer))
	{
		if (target->state == TARGET_SKIPPED)
		{
			end_target(target, TARGET_SKIPPED);
			return;
		}
	}
	if (target->state == TARGET_FAILED)
		settle_failure(target, work);
	else
	{
		target->step++;
		begin_step(target, work);
	}
}

/* Of several answers the last one counts, or else the first error. */
static void
add_answer(Target *target, PGresult *part)
{
	if (target->pending != NULL && is_error(target->pending))
		PQclear(part);
	else
	{
		PQclear(target->pending);
		target->pending = part;
	}
}

/* Take what has come; true once the query is through. */
static bool
collect(Target *target)
{
	PGresult   *part;

	if (!PQconsumeInput(target->conn))
	{
		/* what the server said before it went is still to be had */
		while ((part = PQgetResult(target->conn)) != NULL)
			add_answer(target, part);
		return true;
	}
	while (!PQisBusy(target->conn))
	{
		part = PQgetResult(target->conn);
		if (part == NULL)
			return true;
		add_answer(target, part);
	}
	return false;
}

static void
serve(Target *target, const Work *work)
{
	if (target->state == TARGET_CONNECTING)
	{
		if (connection_step(target))
		{
			detail("connected to database \"%s\" in %.1f ms", target->name,
				   (double) (now_us() - target->started) / 1000);
			begin_step(target, work);
		}
		else if (target->state == TARGET_FAILED)
			settle_failure(target, work);
	}
	else if (target->state == TARGET_BUSY && collect(target))
		finish_step(target, work);
}

/* Is the target's time up?  Then it has failed. */
static bool
is_late(const Loop *loop, Target *target)
{
	int64_t		now = now_us();
	int64_t		end = loop->work->retry_until;

	if (target->state == TARGET_CONNECTING && target->connect_by > 0 && now >= target->connect_by)
	{
		fail_connection(target, "connection timed out");
		return true;
	}
	if (is_over(target) || end == 0 || now < end)
		return false;
	if (target->state == TARGET_BUSY)
		cancel_target(target);
	/* what was wrong all the time says more than how the last try ended */
	if (target->failure.whole == NULL)
		fail_connection(target, target->state == TARGET_NEW ? "there was no time to try" :
						"the server has not answered in time");
	target->state = TARGET_FAILED;
	return true;
}

static void
check_deadlines(const Loop *loop, Target *target)
{
	if (is_late(loop, target))
	{
		close_connection(target);
		settle_failure(target, loop->work);
	}
}

/* Ctrl-C: give up what is not running, cancel what is. */
static void
stop_all(Loop *loop)
{
	int			i;

	loop->stopping = true;
	interrupt_drain();
	for (i = 0; i < loop->targets->count; i++)
	{
		Target	   *target = loop->targets->items[i];

		if (target->state == TARGET_BUSY)
			cancel_target(target);
		else if (!is_over(target))
		{
			/* one that is kept open may be needed to tidy up */
			if (!target->keep_open)
				close_connection(target);
			end_target(target, TARGET_CANCELLED);
		}
	}
}

/* Starts what may start; returns how many are not over. */
static int
start_targets(const Loop *loop)
{
	int			active = 0;
	int			open = 0;
	int			i;

	for (i = 0; i < loop->targets->count; i++)
		active += is_active(loop->targets->items[i]);
	for (i = 0; i < loop->targets->count; i++)
	{
		Target	   *target = loop->targets->items[i];
		bool		due = target->state == TARGET_NEW ||
			(target->state == TARGET_RETRY && now_us() >= target->retry_at);

		if (due && active < target->options->jobs)
		{
			if (target->conn != NULL)
				begin_step(target, loop->work);
			else
				start_connection(target);
			if (target->state == TARGET_FAILED)
				settle_failure(target, loop->work);
			active += is_active(target);
		}
		open += !is_over(target);
	}
	return open;
}

static void
show_progress(const Loop *loop)
{
	int64_t		passed = now_us() - loop->began;
	int			done = 0;
	const Target *waiting = NULL;
	char	   *text;
	int			i;

	if (passed < PATIENCE_US || !progress_wanted())
		return;
	for (i = 0; i < loop->targets->count; i++)
	{
		const Target *target = loop->targets->items[i];

		if (is_over(target))
			done++;
		else if (waiting == NULL)
			waiting = target;
	}
	if (loop->work->single)
		text = xformat("%s, %.0f s%s", loop->work->doing, (double) passed / 1000000,
					   loop->stopping ? ", cancelling" : "");
	else
		text = xformat("%s: %d of %d databases, %.0f s%s%s%s", loop->work->doing, done,
				   loop->targets->count, (double) passed / 1000000,
				   waiting == NULL ? "" : waiting->state == TARGET_BUSY ? ", working on " : ", connecting to ",
				   waiting == NULL ? "" : waiting->name, loop->stopping ? ", cancelling" : "");
	progress(text);
	free(text);
}

/* How long poll() may sleep, in milliseconds. */
static int
sleep_ms(const Loop *loop)
{
	int64_t		now = now_us();
	int64_t		until = progress_wanted() ? now + TICK_US : INT64_MAX;
	int			i;

	if (loop->work->retry_until > now && loop->work->retry_until < until)
		until = loop->work->retry_until;
	for (i = 0; i < loop->targets->count; i++)
	{
		const Target *target = loop->targets->items[i];
		int64_t		at = target->state == TARGET_RETRY ? target->retry_at :
			target->state == TARGET_CONNECTING ? target->connect_by : 0;

		if (at > 0 && at < until)
			until = at;
	}
	if (until == INT64_MAX)
		return -1;
	return until <= now ? 0 : (int) ((until - now) / 1000) + 1;
}

static void
wait_for_sockets(const Loop *loop)
{
	int			count = loop->targets->count;
	int			i;

	for (i = 0; i < count; i++)
	{
		const Target *target = loop->targets->items[i];

		loop->fds[i].fd = is_active(target) ? PQsocket(target->conn) : -1;
		loop->fds[i].events = target->state == TARGET_CONNECTING &&
			target->polling == PGRES_POLLING_WRITING ? POLLOUT : POLLIN;
		loop->fds[i].revents = 0;
	}
	loop->fds[count].fd = interrupt_fd();
	loop->fds[count].events = POLLIN;
	loop->fds[count].revents = 0;
	if (poll(loop->fds, (nfds_t) count + 1, sleep_ms(loop)) < 0)
	{
		/* a signal: its pipe says so next time */
		for (i = 0; i <= count; i++)
			loop->fds[i].revents = 0;
	}
}

/* Queries of run_query() follow each other, and the user waits for all. */
static int64_t queries_since;

/* Walks every target through the work, and returns when all are over. */
void
run_work(const List *targets, const Work *work)
{
	Loop		loop;
	int			i;

	memset(&loop, 0, sizeof(loop));
	loop.targets = targets;
	loop.work = work;
	loop.fds = xmalloc(sizeof(struct pollfd) * ((size_t) targets->count + 1));
	loop.began = work->single ? queries_since : now_us();
	for (;;)
	{
		if (interrupted() && !loop.stopping)
			stop_all(&loop);
		if (start_targets(&loop) == 0)
			break;
		wait_for_sockets(&loop);
		for (i = 0; i < targets->count; i++)
		{
			if (loop.fds[i].revents != 0)
				serve(targets->items[i], work);
			check_deadlines(&loop, targets->items[i]);
		}
		close_ended(&loop, false);
		show_progress(&loop);
	}
	close_ended(&loop, true);
	progress_clear();
	free(loop.fds);
}

static const char *single_query;

static bool
send_single(Target *target)
{
	return PQsendQuery(target->conn, single_query) == 1;
}

/*
 * One query on an open connection that is kept, with the same care: progress
 * and Ctrl-C.  An ERROR is an answer.  NULL if the connection is lost or Ctrl-C
 * was pressed before.  What tidies up is sent even after that.
 */
PGresult *
run_query(Target *target, const char *doing, const char *sql, bool even_if_interrupted)
{
	static const Step step = {send_single, NULL, true};
	static const Step *const steps[] = {&step};
	Work		work;
	List		one = {0, NULL};
	PGresult   *answer;

	if (target->conn == NULL)
		return NULL;
	if (even_if_interrupted)
		return PQexec(target->conn, sql);
	memset(&work, 0, sizeof(work));
	work.doing = doing;
	work.steps = steps;
	work.nsteps = 1;
	work.single = true;
	if (queries_since == 0)
		queries_since = now_us();
	single_query = sql;
	target->state = TARGET_NEW;
	target->step = 0;
	target->canceled = false;
	list_add(&one, target);
	run_work(&one, &work);
	free(one.items);
	answer = target->answers[0];
	target->answers[0] = NULL;
	return answer;
}
