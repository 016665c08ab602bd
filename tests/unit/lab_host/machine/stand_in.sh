#!/bin/sh
# ip, nft, mount, umount, setpriv, systemd-nspawn, systemd-run, systemctl and ssh of a machine in a directory: the one above
# the link by which this is called. What it's called with is appended to ./log. Where a line of ./fail is a pattern that fits
# the call, it fails with what stands behind the pattern's " => ".
program=${0##*/}
here=${0%/*}/..
call="$program $*"

echo "$call" >>"$here/log"
if [ -e "$here/fail" ]; then
  while IFS= read -r line; do
    # shellcheck disable=SC2254 # a pattern is meant
    case "$call" in
      ${line%% => *})
        echo "${line#* => }" >&2
        exit 32
        ;;
    esac
  done <"$here/fail"
fi

last() { for last_word in "$@"; do :; done; echo "$last_word"; }

case "$call" in
  "ip -json -4 address show") cat "$here/addresses.json" ;;
  "ip link add "*" type bridge "*) mkdir -p "$here/net/$3/brif" ;;
  "ip link add "*" type veth peer name "*) mkdir "$here/net/$3" "$here/net/$8" ;;
  "ip link delete "*)
    [ -e "$here/net/$3" ] || exit 1
    rm -r "$here/net/$3"
    rm -f "$here"/net/*/brif/"$3"
    ;;
  "ip link set "*" netns "*) mv "$here/net/$3" "$here/netns/$5/$3" ;;
  "ip link set "*" master "*)
    ln -s "../$5" "$here/net/$3/master"
    : >"$here/net/$5/brif/$3"
    ;;
  "ip link set "*" addrgenmode none") ;;
  "ip link set "*" up") ;;
  "ip address replace "*) echo "2: $5 inet $3 scope global" >"$here/net/$5/address" ;;
  "ip -4 -oneline address show dev "*) cat "$here/net/$6/address" 2>/dev/null || : ;;
  "ip netns add "*) mkdir -p "$here/netns/$3" ;;
  "ip netns delete "*) rm -r "$here/netns/$3" 2>/dev/null ;;
  "ip -n "*" link show lo") [ -e "$here/netns/$2" ] ;;
  "ip -n "*" link show "*) [ -e "$here/netns/$2/$5" ] ;;
  "ip -n "*" link set "*" name "*) mv "$here/netns/$2/$5" "$here/netns/$2/$7" ;;
  "ip -n "*" link set "*) ;;
  "ip -n "*" address replace "*) echo "2: $7 inet $5 scope global" >"$here/netns/$2/address" ;;
  "ip -n "*" -4 -oneline address show dev eth0 up") cat "$here/netns/$2/address" 2>/dev/null || : ;;
  "nft list table inet "*) [ -e "$here/nft/$4" ] ;;
  "nft delete table inet "*) rm "$here/nft/$4" ;;
  "nft -f -")
    rules=$(cat)
    table=${rules#table inet }
    echo "$rules" >"$here/nft/${table%%
*}"
    ;;
  "mount -t overlay "*) echo "9 9 0:9 / $6 rw - overlay overlay rw" >>"$here/mounts" ;;
  "umount "*)
    point=$(last "$@")
    [ "$1" = --lazy ] || [ ! -e "$here/busy" ] || { echo "umount: $point: target is busy." >&2; exit 32; }
    grep -v " $point rw" "$here/mounts" >"$here/mounts.new"
    mv "$here/mounts.new" "$here/mounts"
    ;;
  "setpriv "*" debootstrap "*)
    while [ "$1" != debootstrap ]; do shift; done
    root=$6
    for folder in etc/apt/sources.list.d etc/default etc/ssh etc/systemd/system var/cache/apt/archives var/lib/apt/lists; do
      mkdir -p "$root/$folder"
    done
    : >"$root/etc/apt/sources.list"
    : >"$root/etc/ssh/ssh_host_rsa_key"
    : >"$root/etc/systemd/system/apt-daily.timer"
    : >"$root/var/cache/apt/archives/a.deb"
    : >"$root/var/cache/apt/archives/lock"
    echo "I: Base system installed"
    ;;
  "setpriv "*" apt-get "*) ;;
  "systemd-nspawn "*)
    for option in "$@"; do
      case "$option" in --network-namespace-path=*) namespace=${option##*/} ;; esac
    done
    address=$(sed 's/.* inet \(.*\)\/.*/\1/' "$here/netns/$namespace/address")
    # Killed, it leaves the ssh of its host answering, as a host does whose supervisor was killed.
    end() {
      rm -f "$here/ssh/$address"
      exit "$1"
    }
    trap 'end 0' TERM
    trap 'end 133' USR1
    echo "Welcome to the stand-in"
    [ -e "$here/mute" ] || echo $$ >"$here/ssh/$address"
    [ ! -e "$here/dies" ] || end 1
    while :; do sleep 0.05; done
    ;;
  "systemd-run "*) ;;
  "systemctl "*) ;;
  "ssh "*" systemctl reboot")
    for target in "$@"; do case "$target" in root@*) address=${target#root@} ;; esac; done
    [ -e "$here/stays" ] || kill -USR1 "$(cat "$here/ssh/$address")"
    ;;
  "ssh "*) cat "$here/says" ;;
  *)
    echo "$program: the stand-in doesn't know: $call" >&2
    exit 127
    ;;
esac
