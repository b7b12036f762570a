/**
 * libcpg, libquorum, libvotequorum and libcfg of corosync 3, and epoll, as functions. They are called through koffi, an optional dependency: a
 * cluster with the builtin engine needs neither. Declarations: cpg.h, quorum.h, votequorum.h, cfg.h.
 */
import { OperatingError } from "../../base/error.ts";

/** What is used of koffi; its own types are not there where it is not installed. */
export interface Koffi {
  load(file: string): { func(declaration: string): NativeFunction };
  struct(name: string, fields: Readonly<Record<string, unknown>>): unknown;
  proto(declaration: string): unknown;
  array(type: string, length: number): unknown;
  register(callback: (...args: never[]) => void, type: string): unknown;
  unregister(callback: unknown): void;
  decode(pointer: unknown, type: string, length: number): unknown;
  view(pointer: unknown, bytes: number): ArrayBuffer;
}

export interface NativeFunction {
  (...args: unknown[]): number;
  /** On a thread of the pool; the last argument is called back. */
  async(...args: unknown[]): void;
}

export interface CorosyncLibraries {
  readonly koffi: Koffi;
  readonly cpg: Readonly<Record<"initialize" | "fdGet" | "localGet" | "join" | "multicast" | "dispatch" | "finalize", NativeFunction>>;
  readonly quorum: Readonly<Record<"initialize" | "fdGet" | "track" | "dispatch" | "finalize", NativeFunction>>;
  readonly votequorum: Readonly<Record<"initialize" | "getInfo" | "finalize", NativeFunction>>;
  readonly cfg: Readonly<Record<"initialize" | "fdGet" | "track" | "dispatch" | "replyToShutdown" | "finalize", NativeFunction>>;
  readonly epoll: Readonly<Record<"create" | "control" | "wait" | "eventfd" | "write" | "close", NativeFunction>>;
}

export interface VotequorumInfo {
  readonly node_votes: number;
  readonly highest_expected: number;
  readonly flags: number;
}

function declareTypes(koffi: Koffi): void {
  koffi.struct("cpg_name", { length: "uint32_t", value: koffi.array("uint8_t", 128) });
  koffi.struct("cpg_address", { nodeid: "uint32_t", pid: "uint32_t", reason: "uint32_t" });
  koffi.struct("corosync_ring_id", { nodeid: "uint32_t", seq: "uint64_t" });
  koffi.struct("cpg_iovec", { base: "void *", length: "size_t" });
  koffi.struct("votequorum_info", {
    node_id: "uint32_t",
    node_state: "uint32_t",
    node_votes: "uint32_t",
    node_expected_votes: "uint32_t",
    highest_expected: "uint32_t",
    total_votes: "uint32_t",
    quorum: "uint32_t",
    flags: "uint32_t",
    qdevice_votes: "uint32_t",
    qdevice_name: koffi.array("uint8_t", 255),
  });
  koffi.proto("void cpg_deliver(uint64_t handle, void *group, uint32_t nodeid, uint32_t pid, void *message, size_t length)");
  koffi.proto(
    "void cpg_confchg(uint64_t handle, void *group, void *members, size_t n, void *left, size_t left_n, void *joined, size_t joined_n)",
  );
  koffi.proto("void cpg_totem_confchg(uint64_t handle, corosync_ring_id ring, uint32_t n, void *members)");
  koffi.struct("cpg_model_v1", {
    model: "int",
    deliver: "cpg_deliver *",
    confchg: "cpg_confchg *",
    totem_confchg: "cpg_totem_confchg *",
    flags: "uint32_t",
  });
  koffi.proto("void quorum_notify(uint64_t handle, uint32_t quorate, corosync_ring_id ring, uint32_t n, void *members)");
  koffi.proto(
    "void quorum_nodelist(uint64_t handle, corosync_ring_id ring, uint32_t n, void *members, uint32_t joined_n, void *joined, uint32_t left_n, void *left)",
  );
  koffi.struct("quorum_model_v1", { model: "int", notify: "quorum_notify *", nodelist: "quorum_nodelist *" });
  koffi.proto("void cfg_shutdown(uint64_t handle, int how)");
  koffi.struct("cfg_callbacks", { shutdown: "cfg_shutdown *" });
}

let loaded: Promise<CorosyncLibraries> | null = null;

/** Rejects with OperatingError where koffi or one of the libraries is not installed. */
export function loadCorosyncLibraries(): Promise<CorosyncLibraries> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<CorosyncLibraries> {
  try {
    // By a name that the compiler does not look up: where it is not installed, the rest is built all the same.
    const name = "koffi";
    const koffi = ((await import(name)) as { default: Koffi }).default;
    declareTypes(koffi);
    const files = ["libc.so.6", "libcpg.so.4", "libquorum.so.5", "libvotequorum.so.8", "libcfg.so.7"];
    const [libc, cpg, quorum, votequorum, cfg] = files.map((file) => koffi.load(file));
    const of = (library: typeof libc, declaration: string): NativeFunction => (library as NonNullable<typeof libc>).func(declaration);
    return {
      koffi,
      cpg: {
        initialize: of(cpg, "int cpg_model_initialize(_Out_ uint64_t *handle, int model, cpg_model_v1 *data, void *context)"),
        fdGet: of(cpg, "int cpg_fd_get(uint64_t handle, _Out_ int *fd)"),
        localGet: of(cpg, "int cpg_local_get(uint64_t handle, _Out_ uint32_t *nodeid)"),
        join: of(cpg, "int cpg_join(uint64_t handle, cpg_name *group)"),
        multicast: of(cpg, "int cpg_mcast_joined(uint64_t handle, int guarantee, cpg_iovec *parts, uint32_t n)"),
        dispatch: of(cpg, "int cpg_dispatch(uint64_t handle, int how)"),
        finalize: of(cpg, "int cpg_finalize(uint64_t handle)"),
      },
      quorum: {
        initialize: of(
          quorum,
          "int quorum_model_initialize(_Out_ uint64_t *handle, int model, quorum_model_v1 *data, _Out_ uint32_t *type, void *context)",
        ),
        fdGet: of(quorum, "int quorum_fd_get(uint64_t handle, _Out_ int *fd)"),
        track: of(quorum, "int quorum_trackstart(uint64_t handle, uint32_t flags)"),
        dispatch: of(quorum, "int quorum_dispatch(uint64_t handle, int how)"),
        finalize: of(quorum, "int quorum_finalize(uint64_t handle)"),
      },
      votequorum: {
        initialize: of(votequorum, "int votequorum_initialize(_Out_ uint64_t *handle, void *callbacks)"),
        getInfo: of(votequorum, "int votequorum_getinfo(uint64_t handle, uint32_t nodeid, _Out_ votequorum_info *info)"),
        finalize: of(votequorum, "int votequorum_finalize(uint64_t handle)"),
      },
      cfg: {
        initialize: of(cfg, "int corosync_cfg_initialize(_Out_ uint64_t *handle, cfg_callbacks *callbacks)"),
        fdGet: of(cfg, "int corosync_cfg_fd_get(uint64_t handle, _Out_ int *fd)"),
        track: of(cfg, "int corosync_cfg_trackstart(uint64_t handle, uint8_t flags)"),
        dispatch: of(cfg, "int corosync_cfg_dispatch(uint64_t handle, int how)"),
        replyToShutdown: of(cfg, "int corosync_cfg_replyto_shutdown(uint64_t handle, int reply)"),
        finalize: of(cfg, "int corosync_cfg_finalize(uint64_t handle)"),
      },
      epoll: {
        create: of(libc, "int epoll_create1(int flags)"),
        control: of(libc, "int epoll_ctl(int epoll, int operation, int fd, void *event)"),
        wait: of(libc, "int epoll_wait(int epoll, void *events, int n, int timeout)"),
        eventfd: of(libc, "int eventfd(uint32_t initial, int flags)"),
        write: of(libc, "long write(int fd, void *bytes, unsigned long n)"),
        close: of(libc, "int close(int fd)"),
      },
    };
  } catch (cause) {
    throw new OperatingError(`engine: corosync needs corosync's libraries and koffi, which cannot be loaded: ${(cause as Error).message}`, {
      code: "no-corosync",
      hint: "Debian: apt-get install corosync libcpg4 libquorum5 libvotequorum8 libcfg7; and npm install koffi, an optional dependency. Or engine: builtin.",
      cause,
    });
  }
}
