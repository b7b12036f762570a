// fsopen, fsconfig, fsmount (kernel: fs/fsopen.c) by system call number, for C libraries before 2.36.
#pragma once

#include <sys/syscall.h>

#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif

// include/uapi/linux/mount.h, which cannot stand beside <sys/mount.h>.
constexpr unsigned kFsopenCloexec = 1;
constexpr unsigned kFsmountCloexec = 1;
constexpr unsigned kFsconfigSetFlag = 0;
constexpr unsigned kFsconfigSetString = 1;
constexpr unsigned kFsconfigCmdCreate = 6;
