/*-------------------------------------------------------------------------
 *
 * status.h
 *		What status.c judges and status_report.c shows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TESTENV_STATUS_H
#define TESTENV_STATUS_H

#include "cli.h"

typedef enum Health
{
	HEALTHY, DEGRADED, UNHEALTHY
} Health;

/* The steps, which are the places of their answers, too. */
enum
{
	STEP_FIND,
	STEP_FACTS,
	STEP_SNAPSHOTS,
	STEP_CLEAN,
	STEP_SETTINGS,
	STEP_SESSIONS,
	STEP_COUNT
};

typedef struct Judgement
{
	Health		health;
	List		reasons;		/* char * */
	bool		guards_met;
	int			current;		/* row of the current snapshot, or -1 */
	const char *changed;		/* "clean", "changed" or NULL */
	double		slowest_ms;		/* negative if nobody knows */
	double		last_ms;
} Judgement;

extern int	status_report(const Options *options, const List *targets, const Judgement *judgements, int code);

#endif							/* TESTENV_STATUS_H */
