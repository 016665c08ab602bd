#!/bin/sh
# modprobe, rmmod, modinfo and systemctl of a host in a directory, $HOST_ROOT. What changes the host is written to
# $HOST_ROOT/log, and where it is $CUT, who called is killed: after the effect, or before it where $CUT begins with "before ".
name=${0##*/}
line="$name $*"
version=200.20.30

cut() {
  [ "$CUT" = "$1$line" ] || return 0
  echo "cut $1$line" >>"$HOST_ROOT/log"
  kill -KILL "$PPID"
  [ -z "$1" ] || exit 1
}

changes() {
  cut "before "
  echo "$line" >>"$HOST_ROOT/log"
}

case "$line" in
  "systemctl list-units "*)
    for unit in "$HOST_ROOT"/active/*.service; do
      [ ! -e "$unit" ] || echo "${unit##*/} loaded active running A unit"
    done
    ;;
  "systemctl show "*)
    state=inactive
    [ ! -e "$HOST_ROOT/active/$4" ] || state=active
    echo "Id=$4"
    echo LoadState=loaded
    echo "ActiveState=$state"
    echo UnitFileState=enabled
    ;;
  "systemctl stop -- "*) changes && rm "$HOST_ROOT/active/$3" && cut "" ;;
  "systemctl start -- "*) changes && : >"$HOST_ROOT/active/$3" && cut "" ;;
  "systemctl start --no-block -- "*) changes && : >"$HOST_ROOT/active/$4" && cut "" ;;
  "rmmod nvidia")
    if [ -e "$HOST_ROOT/sys/module/nvidia_uvm" ]; then
      echo "rmmod: ERROR: Module nvidia is in use by: nvidia_uvm" >&2
      exit 1
    fi
    changes
    rm -r "$HOST_ROOT/sys/module/nvidia"
    cut ""
    ;;
  "rmmod "*) changes && rm -r "$HOST_ROOT/sys/module/$1" && cut "" ;;
  "modprobe "*)
    [ ! -e "$HOST_ROOT/sys/module/$1" ] || exit 0
    if [ "$1" != nvidia ] && [ ! -e "$HOST_ROOT/sys/module/nvidia" ]; then
      echo "modprobe: ERROR: could not insert '$1': Unknown symbol" >&2
      exit 1
    fi
    changes
    mkdir "$HOST_ROOT/sys/module/$1"
    [ "$1" != nvidia ] || echo "$version" >"$HOST_ROOT/sys/module/nvidia/version"
    cut ""
    ;;
  "modinfo -k "*" nvidia") printf 'filename: /lib/modules/nvidia.ko\nversion: %s\nlicense: Dual MIT/GPL\n' "$version" ;;
  *)
    echo "$name: not found" >&2
    exit 127
    ;;
esac
