/*
 * A differential tester of file systems: each operation is done in two directories, one of a file system that is trusted and one of
 * the drive, and both must give the same result, errno, contents, attributes and listings. Deterministic by its seed.
 * Run as root: operations are done as different users. See main.c for the command line.
 */
#ifndef FSX_H
#define FSX_H

#include <stdint.h>
#include <sys/types.h>

enum { trusted = 0, tested = 1, sides = 2 };
enum { max_path = 4096, open_slots = 12, max_file = 6 << 20 };

/* --- chance --- */
void seed_chance(uint64_t seed);
/* 0 .. below - 1 */
uint32_t pick(uint32_t below);
/* True once in `of`. */
int chance(uint32_t of);

/* --- the two sides --- */
extern const char *root[sides];
/* Directories with the same read-only files to clone from; NULL if there are none. */
extern const char *source[sides];
extern int slot_fd[open_slots][sides];
extern int slot_flags[open_slots];
/* Root of a side, then the relative path. Valid until the second call after this one. */
const char *at_side(int side, const char *relative);
/* A path below the root, of few names, so that many exist; often one that was used before. */
void random_path(char *path);

/* --- one operation --- */
extern long result[sides];
extern int error[sides];
/* Tells what is done next; shown when it fails. */
void doing(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What is done next is also asked whether it changes the mtimes of these (either may be NULL) and of their directories. */
void watch_times(const char *path, const char *other);
/* Compares results and errnos and the watched times; ends the program if they differ. */
void agree(void);
void disagree(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define BOTH(call) do { for (int side = 0; side < sides; side++) { \
  result[side] = (long)(call); error[side] = result[side] < 0 ? errno : 0; } } while (0)

void become(uint32_t user);
void close_slots(void);

/* operations.c: one operation by chance. */
void operate(void);
/* content.c */
void operate_on_content(int slot);
void clone_from_source(void);
/* directories.c: listing a directory while it changes. */
void churn_directory(void);
/* compare.c */
void compare_files(int fd_a, int fd_b, const char *name);
void compare_attributes(const char *path);
void compare_trees(void);
/*
 * After an operation of a plain user. FUSE in the kernel keeps set-group-id at a write when the group may not execute, others drop it then
 * if the writer is not in the group, which is not told to the file system. That alone is forgiven, and made equal.
 */
void settle_set_group(const char *path, int slot);
/* Gives everything a time that is the same on both sides, and takes sockets away, which are not archived. */
void settle_trees(void);

#endif
