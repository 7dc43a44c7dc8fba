/* Listing a directory while it changes: what stays is seen exactly once, what is listed again after rewinddir is what is there. */
#define _GNU_SOURCE
#include "fsx.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most = 1200 };
static const char folder[] = "churn";
static unsigned char there[most], stayed[most];
static unsigned short times_seen[most];

static const char *name_of(uint32_t index) {
  static char names[2][300];
  static int turn;
  turn ^= 1;
  snprintf(names[turn], sizeof names[turn], "%s/entry with a name that fills the reply sooner %u", folder, index);
  return names[turn];
}

static void make(uint32_t index) {
  BOTH(mknod(at_side(side, name_of(index)), S_IFREG | 0644, 0));
  agree();
  there[index] = 1;
}

static void take(uint32_t index) {
  BOTH(unlink(at_side(side, name_of(index))));
  agree();
  there[index] = stayed[index] = 0;
}

static void note(const struct dirent *entry) {
  const char *number = strrchr(entry->d_name, ' ');
  if (number) times_seen[atoi(number)]++;
}

void churn_directory(void) {
  uint32_t count = 50 + pick(most - 50);
  doing("churn a directory of %u", count);
  BOTH(mkdir(at_side(side, folder), 0755));
  agree();
  memset(there, 0, sizeof there);
  for (uint32_t index = 0; index < count; index += 1 + pick(2)) make(index);
  DIR *listing = opendir(at_side(tested, folder));
  if (!listing) disagree("opendir: %s", strerror(errno));
  for (int round = 0; round < 2; round++) {
    memcpy(stayed, there, sizeof there);
    memset(times_seen, 0, sizeof times_seen);
    struct dirent *entry;
    while ((entry = readdir(listing))) {
      note(entry);
      if (!chance(20)) continue;
      uint32_t index = pick(count);
      if (there[index]) take(index); else make(index);
      /* Going back to where one was is going nowhere. */
      if (chance(10)) seekdir(listing, telldir(listing));
    }
    for (uint32_t index = 0; index < count; index++)
      if (stayed[index] && times_seen[index] != 1) disagree("entry %u was there throughout and was listed %u times", index, times_seen[index]);
    rewinddir(listing);
  }
  /* As rm -r does it. */
  for (struct dirent *entry; (entry = readdir(listing));) {
    const char *number = strrchr(entry->d_name, ' ');
    if (number && there[atoi(number)]) take((uint32_t)atoi(number));
  }
  closedir(listing);
  BOTH(rmdir(at_side(side, folder)));
  agree();
}
