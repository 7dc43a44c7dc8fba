# Read by bin/borgfs when mount(8) or umount(8) calls it, as /sbin/mount.borgfs, /sbin/umount.borgfs or with `fuse.` before the last word:
#
#   mount.borgfs REPOSITORY[::ARCHIVE] MOUNTPOINT [-sfnvrw] [-t TYPE] [-N NAMESPACE] [-o OPTIONS]
#   umount.borgfs MOUNTPOINT [-flnrv] [-t TYPE] [-N NAMESPACE]
#
# The words become those of `borgfs mount` and `borgfs umount`. Options that begin with BORG_ are environment variables, because whoever
# mounts at boot has none. In the mount table the drive is called by its repository, so that `mount -a` knows what is mounted.

helper=$program
spec= place= options= verbose= fake= lazy= named=

refuse() {
  echo "$helper: $1" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    -o) options=${options:+$options,}${2-}; shift ;;
    -t) shift ;;
    -N) refuse "another mount namespace (-N) is not possible." ;;
    -[!-]*)
      # Several in one word.
      case $1 in *v*) verbose=-v ;; esac
      case $1 in *l*) lazy=-l ;; esac
      case $1 in *r*) options=${options:+$options,}ro ;; esac
      case $helper,$1 in mount*,*f*) fake=1 ;; esac
      ;;
    *)
      if [ -z "$spec" ]; then spec=$1
      elif [ -z "$place" ]; then place=$1
      else refuse "$1: only a repository and a mountpoint are wanted."
      fi
      ;;
  esac
  [ $# -eq 0 ] || shift
done

case $helper in
  umount.*)
    [ -n "$spec" ] || refuse "a mountpoint is wanted."
    # Away at once is what -l is for.
    [ -z "$lazy" ] || exec umount -i -l -- "$spec"
    set -- umount $verbose "$spec"
    ;;
  *)
    [ -n "$place" ] || refuse "a repository and a mountpoint are wanted."
    [ -z "$fake" ] || exit 0
    rest=
    set -f
    IFS=,
    for word in $options; do
      case $word in
        BORG_PASSPHRASE=* | BORG_NEW_PASSPHRASE=*) refuse "${word%%=*}: everybody could read it here. Use BORG_PASSCOMMAND." ;;
        BORG_[A-Z_]*=*)
          name=${word%%=*}
          case $name in *[!A-Z0-9_]*) refuse "$name is no name of an environment variable." ;; esac
          export "$name=${word#*=}"
          continue
          ;;
        remount) refuse "options of a drive that is mounted cannot be changed. Unmount it and mount it again." ;;
        fsname=*) named=1 ;;
      esac
      rest=${rest:+$rest,}$word
    done
    unset IFS
    set +f
    # A comma would begin another option.
    case $named$spec in 1* | *,*) ;; *) rest=${rest:+$rest,}fsname=$spec ;; esac
    set -- mount $verbose -o "${rest:+$rest,}subtype=borgfs" "$spec" "$place"
    ;;
esac
program=borgfs
