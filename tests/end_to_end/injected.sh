#!/usr/bin/env bash
# Runs a program; on rank $RANK of an MPI job under strace, which plants $FAULT into its calls of $CALLS, e.g.
# RANK=1 CALLS=pwrite64 FAULT=signal=KILL:when=5
[ "${OMPI_COMM_WORLD_RANK:-0}" = "$RANK" ] || exec "$@"
exec strace -f -qq -o /dev/null -e trace="$CALLS" -e inject="$CALLS:$FAULT" "$@"
