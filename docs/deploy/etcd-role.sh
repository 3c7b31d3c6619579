#!/bin/sh
# Makes the user that a controller needs on an etcd with authentication, with the least
# privileges: to read and write what is under its prefix. Reads the password from standard input.
#
#     printf '%s\n' "$PASSWORD" | ETCDCTL_ENDPOINTS=etcd:2379 ETCDCTL_USER=root etcd-role.sh pac /pac/v1/
set -eu
export ETCDCTL_API=3

user=${1:?the name of the user, and of its role}
prefix=${2:?the prefix of the keys, /pac/v1/ unless it was set}

# Each step may have been done before, by a run that did not come to its end.
etcdctl role get "$user" >/dev/null 2>&1 || etcdctl role add "$user"
etcdctl role grant-permission --prefix=true "$user" readwrite "$prefix"
if etcdctl user get "$user" >/dev/null 2>&1; then
  etcdctl user passwd --interactive=false "$user"
else
  etcdctl user add --interactive=false "$user"
fi
etcdctl user grant-role "$user" "$user"
