/*-------------------------------------------------------------------------
 *
 * clone.h
 *		What clone.c and clone_copy.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TESTENV_CLONE_H
#define TESTENV_CLONE_H

#include "cli.h"

/* how the comment of every clone begins */
#define CLONE_MARK "testenv clone of "

typedef enum CloneResult
{
	CLONE_NOT_STARTED, CLONE_CREATED, CLONE_KEPT, CLONE_FAILED
} CloneResult;

typedef struct Clone
{
	Target	   *target;
	CloneResult result;
	const char *strategy;
	double		ms;
	bool		restored;
} Clone;

typedef struct Cloning
{
	const Options *options;
	Target	   *source;
	Target	   *admin;			/* the maintenance database, kept open */
	char	   *original;		/* name of the source */
	char	   *mark;			/* comment of a clone that is complete */
	char	   *prefix;			/* of the clones' names */
	Clone	   *clones;
	List		targets;		/* those of the clones */
	List		dropped;		/* names */
	const char *doing;
	bool		method_known;	/* is file_copy_method settled? */
	bool		can_clone;		/* the server copies files without copying */
} Cloning;

extern PGresult *clone_query(Cloning *cloning, const char *sql);
extern void clone_create(Cloning *cloning, Clone *clone);

#endif							/* TESTENV_CLONE_H */
