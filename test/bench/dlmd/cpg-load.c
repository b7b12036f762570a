/*
 * corosync's closed process groups through its C library (cpg_mcast_joined(3), agreed order), as the measure for dlmd's engine.
 *
 *   cpg-load latency COUNT           own message, sent to delivered here: prints "medianNs N"
 *   cpg-load throughput COUNT BYTES  COUNT messages as fast as they are taken: prints "ops N" and "ns N"
 *   cpg-load listen                  joins and delivers until it is ended: prints "ready"
 */
#include <corosync/cpg.h>
#include <corosync/corotypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t delivered;
static uint32_t me, members;
static int my_pid;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *message, size_t bytes) {
  (void)handle, (void)group, (void)message, (void)bytes;
  if (nodeid == me && (int)pid == my_pid) delivered++;
}

static void change(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *list, size_t count,
                   const struct cpg_address *left, size_t left_count, const struct cpg_address *joined, size_t joined_count) {
  (void)handle, (void)group, (void)list, (void)left, (void)left_count, (void)joined, (void)joined_count;
  members = (uint32_t)count;
}

static void must(const char *what, cs_error_t error) {
  if (error == CS_OK) return;
  fprintf(stderr, "cpg-load: %s: corosync error %d\n", what, (int)error);
  exit(1);
}

/* CS_ERR_TRY_AGAIN is flow control: messages must be delivered before more are taken. */
static void mcast(cpg_handle_t handle, struct iovec *vector) {
  for (;;) {
    cs_error_t error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, vector, 1);
    if (error == CS_OK) return;
    if (error != CS_ERR_TRY_AGAIN) must("cpg_mcast_joined", error);
    must("cpg_dispatch", cpg_dispatch(handle, CS_DISPATCH_ALL));
  }
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc < 2) return fprintf(stderr, "cpg-load: expected latency COUNT, throughput COUNT BYTES, or listen\n"), 2;
  cpg_callbacks_t callbacks = {.cpg_deliver_fn = deliver, .cpg_confchg_fn = change};
  cpg_handle_t handle;
  must("cpg_initialize", cpg_initialize(&handle, &callbacks));
  must("cpg_local_get", cpg_local_get(handle, &me));
  my_pid = getpid();
  struct cpg_name group = {.length = 5};
  memcpy(group.value, "bench", 5);
  must("cpg_join", cpg_join(handle, &group));
  while (members == 0) must("cpg_dispatch", cpg_dispatch(handle, CS_DISPATCH_ONE));
  if (strcmp(argv[1], "listen") == 0) {
    printf("ready\n");
    fflush(stdout);
    must("cpg_dispatch", cpg_dispatch(handle, CS_DISPATCH_BLOCKING));
    return 0;
  }
  uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
  size_t bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : 64;
  char *message = calloc(1, bytes);
  struct iovec vector = {.iov_base = message, .iov_len = bytes};
  if (count == 0 || message == NULL) return fprintf(stderr, "cpg-load: a count above 0 expected\n"), 2;
  if (strcmp(argv[1], "latency") == 0) {
    uint64_t *trips = calloc(count, sizeof *trips);
    if (trips == NULL) return 1;
    for (uint64_t i = 0; i < count; i++) {
      uint64_t start = now_ns(), before = delivered;
      mcast(handle, &vector);
      while (delivered == before) must("cpg_dispatch", cpg_dispatch(handle, CS_DISPATCH_ONE));
      trips[i] = now_ns() - start;
    }
    qsort(trips, count, sizeof *trips, compare);
    printf("medianNs %llu\n", (unsigned long long)trips[count / 2]);
  } else {
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++) mcast(handle, &vector);
    while (delivered < count) must("cpg_dispatch", cpg_dispatch(handle, CS_DISPATCH_ONE));
    printf("ops %llu\nns %llu\n", (unsigned long long)count, (unsigned long long)(now_ns() - start));
  }
  cpg_finalize(handle);
  return 0;
}
