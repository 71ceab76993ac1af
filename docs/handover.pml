/* The hand-over from snapshot to binlog, for spin: `make model`. docs/handover.md explains it and names the moments.
 *
 * A source, its stream, and two chunks in flight, of one key each. Every transaction puts a row, drops one, or moves one to the other
 * chunk's key. Its moments come in any order a server allows: it is written under the locks of its rows, it may be delivered from then
 * on, it becomes visible, its GTID becomes executed.
 *
 * The claim is asserted wherever the target changes; and no process may wait for ever, so both chunks are emitted in the end.
 * WITHOUT_WAIT, WITHOUT_TOUCHED and HIGH_FROM_GTIDS each leave out one part of the protocol: spin must find where that goes wrong.
 */
#define TRANSACTIONS 3
#define KEYS 2                                     /* chunk c reads key c */
#define NO_KEY 2
#define ABSENT 0
#define INITIAL 4                                  /* other rows are named after the transaction that put them */

/* the source: transaction t is the t-th in the binlog */
byte written;                                      /* how many are: the end of the binlog as file and offset */
byte drops[4], puts[4];                            /* of transaction 1, 2, 3: a key or NO_KEY */
bool locked[3];                                    /* of key 0, 1, NO_KEY */
bool executed[4];
byte view[3] = {INITIAL, ABSENT, ABSENT};          /* what a SELECT shows */

/* the engine */
byte delivered;                                    /* the position: transactions 1..delivered are applied */
byte source[3] = {INITIAL, ABSENT, ABSENT};        /* the source's rows as of the position */
byte target[3];
bool in_flight[KEYS], emitted[KEYS], touched[KEYS];

#define CHANGE(rows, t) rows[drops[t]] = ABSENT; rows[puts[t]] = t; rows[NO_KEY] = ABSENT

/* Whether gtid_executed contains the position; where gtid_executed ends in the binlog. */
#define EXECUTED(position) ((position < 1 || executed[1]) && (position < 2 || executed[2]) && (position < 3 || executed[3]))
#define EXECUTED_END (executed[3] -> 3 : (executed[2] -> 2 : (executed[1] -> 1 : 0)))

/* Up to the cursor the target is the source at the position; beyond it the target may lack a row, and has none of its own. */
#define HOLDS(key) (target[key] == source[key] || (target[key] == ABSENT && !emitted[key]))

inline record(key)
{
    if
    :: key != NO_KEY && in_flight[key] ->
#ifndef WITHOUT_TOUCHED
        touched[key] = true
#else
        skip
#endif
    :: else
    fi
}

active [TRANSACTIONS] proctype transaction()
{
    byte me = _pid + 1;
    atomic {                                       /* they come in the order of their numbers; what they do is open */
        written == me - 1 ->
        drops[me] = NO_KEY;
        puts[me] = NO_KEY;
        if
        :: !locked[0] -> puts[me] = 0
        :: !locked[1] -> puts[me] = 1
        :: !locked[0] -> drops[me] = 0
        :: !locked[1] -> drops[me] = 1
        :: !locked[0] && !locked[1] -> drops[me] = 0; puts[me] = 1
        :: !locked[0] && !locked[1] -> drops[me] = 1; puts[me] = 0
        fi;
        locked[drops[me]] = true;
        locked[puts[me]] = true;
        locked[NO_KEY] = false;
        written = me;
        printf("transaction %d is written: drops %d, puts %d\n", me, drops[me], puts[me])
    }
    atomic {
        CHANGE(view, me);
        locked[drops[me]] = false;
        locked[puts[me]] = false;
        printf("transaction %d is visible\n", me)
    }
    atomic {
        executed[me] = true;
        printf("transaction %d is executed\n", me)
    }
}

active proctype stream()
{
end:
    do
    :: atomic {
        delivered < written ->
        delivered++;
        record(drops[delivered]);
        record(puts[delivered]);
        CHANGE(source, delivered);
        CHANGE(target, delivered);
        printf("transaction %d is delivered\n", delivered);
        assert(HOLDS(0) && HOLDS(1))
    }
    od
}

active [KEYS] proctype chunk()
{
    byte me = _pid - TRANSACTIONS - 1, low, row, high;
    atomic {                                       /* request */
        low = delivered;
        in_flight[me] = true;
        printf("chunk %d is asked for at position %d\n", me, low)
    }
    atomic {                                       /* low */
#ifndef WITHOUT_WAIT
        EXECUTED(low) ->
#endif
        row = view[me];
        low = 0;
        printf("chunk %d is read: row %d\n", me, row)
    }
    atomic {                                       /* high */
#ifndef HIGH_FROM_GTIDS
        high = written;
#else
        high = EXECUTED_END;
#endif
        printf("chunk %d has high %d\n", me, high)
    }
    atomic {                                       /* emit */
        delivered >= high ->
        if
        :: row != ABSENT && !touched[me] -> target[me] = row
        :: else
        fi;
        emitted[me] = true;
        in_flight[me] = false;
        touched[me] = false;
        row = 0;
        high = 0;
        printf("chunk %d is emitted\n", me);
        assert(HOLDS(0) && HOLDS(1))
    }
}
