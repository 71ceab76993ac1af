# The shards of a map: how they are made, locked and freed, also around fork().
#
# fork() copies one thread. A lock that another thread holds at that moment would stay locked in the child for ever, with
# its shard half changed. So the forking thread takes the locks of all shards first; the parent releases them, the child
# makes them anew. Python's collector is off in between: its callbacks could wait for a lock that their own thread holds.

cdef struct Group:              # all shards of one map
    Shard *shards
    unsigned n
    uint64_t trace_seq
    bint held                   # by the thread that forks
    Group *older                # the shards of a subclass before it passed its options
    Group *next                 # in the list of all groups
    Group *prev

cdef Group *groups = NULL
cdef Lock groups_lock           # of that list
cdef Lock fork_lock             # held from before_fork() to the hook after it: one thread forks at a time
cdef bint collecting = False    # whether the collector was on before
cdef uint64_t forks = 0         # between this process and the one that imported the module
ms_lock_init(&groups_lock)
ms_lock_init(&fork_lock)


cdef inline void take(Lock *lock) noexcept:
    """Acquire a lock from Python: without waiting if it is free, else without the GIL."""
    if not ms_trylock(lock):
        with nogil:
            ms_acquire(lock)


cdef inline void lock_shard(Shard *s) noexcept:
    take(&s.lock)


cdef extern from "Python.h":
    bint PyGC_Disable() noexcept            # returns whether it was on
    bint PyGC_Enable() noexcept


cdef Group *group_new(unsigned n, const HashKey *hash, bint full, uint64_t reserve, uint64_t trace) noexcept:
    """Empty shards with room for so many entries in all; NULL without memory."""
    global groups
    cdef Group *group = <Group *>ms_calloc(1, sizeof(Group))
    cdef unsigned i
    cdef Shard *s
    cdef bint ok
    if group == NULL:
        return NULL
    group.shards = <Shard *>ms_calloc(n, sizeof(Shard))
    ok = group.shards != NULL
    if ok:
        group.n = n
        for i in range(n):
            s = &group.shards[i]
            ms_lock_init(&s.lock)
            s.number = <uint16_t>i
            s.hash = hash[0]
            s.full = full
            s.trace_seq = &group.trace_seq
            ok = ok and shard_init(s, reserve // n)
            if ok and trace:
                s.trace = <Event *>ms_calloc(trace, sizeof(Event))
                s.trace_cap = trace
                ok = s.trace != NULL
    take(&groups_lock)
    group.next = groups
    if groups != NULL:
        groups.prev = group
    groups = group
    ms_release(&groups_lock)
    if not ok:
        group_free(group)
        return NULL
    return group


cdef void group_free(Group *group) noexcept:
    global groups
    cdef unsigned i
    cdef Group *older
    while group != NULL:
        take(&groups_lock)
        if group.prev == NULL:
            groups = group.next
        else:
            group.prev.next = group.next
        if group.next != NULL:
            group.next.prev = group.prev
        ms_release(&groups_lock)
        for i in range(group.n):
            shard_free(&group.shards[i])
            ms_lock_destroy(&group.shards[i].lock)
        older = group.older
        free(group.shards)
        free(group)
        group = older


def before_fork():
    """Take the locks of all maps."""
    global collecting
    cdef Group *group
    cdef unsigned i
    take(&fork_lock)
    collecting = PyGC_Disable()
    take(&groups_lock)
    group = groups
    while group != NULL:
        for i in range(group.n):
            take(&group.shards[i].lock)
        group.held = True
        group = group.next
    ms_release(&groups_lock)


def after_fork_in_parent():
    """Release the locks in the parent."""
    cdef Group *group
    cdef unsigned i
    take(&groups_lock)
    group = groups
    while group != NULL:
        for i in range(group.n if group.held else 0):
            ms_release(&group.shards[i].lock)
        group.held = False
        group = group.next
    ms_release(&groups_lock)
    if collecting:
        PyGC_Enable()
    ms_release(&fork_lock)


def after_fork_in_child():
    """Make the locks anew in the child, whose only thread this is."""
    global forks
    cdef Group *group = groups
    cdef unsigned i
    ms_lock_init(&groups_lock)
    ms_lock_init(&fork_lock)
    while group != NULL:
        for i in range(group.n):
            ms_lock_init(&group.shards[i].lock)
        group.held = False
        group = group.next
    forks += 1
    if collecting:
        PyGC_Enable()


os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
