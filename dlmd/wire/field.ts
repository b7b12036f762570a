/**
 * Fields of messages: how a value is written and how it is read, once each. A message is the list of its fields in the order in which they
 * travel; its type is an interface beside it, and the compiler holds the two together. Little-endian.
 */
import { AssertionError } from "../base/assert.ts";
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";

export interface Field<T> {
  readonly write: (w: ByteWriter, value: T) => void;
  /** Throws WireError. */
  readonly read: (r: ByteReader) => T;
}

/** In the order in which they travel. */
export type Fields<T> = { readonly [K in keyof T]-?: Field<T[K]> };

/** A kind of message on the channel of a pair. */
export interface Row<M> extends Field<M> {
  /** On the wire, in front of its fields. */
  readonly type: number;
}
/** A row for each kind. */
export type Rows<M extends { readonly kind: string }> = { readonly [K in M["kind"]]: Row<Extract<M, { kind: K }>> };

export const u8: Field<number> = { write: (w, value) => w.u8(value), read: (r) => r.u8() };
export const u16: Field<number> = { write: (w, value) => w.u16(value), read: (r) => r.u16() };
export const u32: Field<number> = { write: (w, value) => w.u32(value), read: (r) => r.u32() };
export const u64: Field<number> = { write: (w, value) => w.u64(value), read: (r) => r.u64() };
export const bigU64: Field<bigint> = { write: (w, value) => w.bigU64(value), read: (r) => r.bigU64() };
export const flag: Field<boolean> = { write: (w, value) => w.bool(value), read: (r) => r.bool() };

/** After their number, as a view of the frame. */
export function block(mostBytes: number): Field<Uint8Array> {
  return { write: (w, bytes) => w.block(bytes), read: (r) => r.block(mostBytes) };
}

export function copy(mostBytes: number): Field<Uint8Array> {
  return { write: (w, bytes) => w.block(bytes), read: (r) => new Uint8Array(r.block(mostBytes)) };
}

export function text(mostBytes: number): Field<string> {
  return { write: (w, value) => w.string(value), read: (r) => r.string(mostBytes) };
}

/** A u8: its place in the list. */
export function oneOf<T>(values: readonly T[], what: string): Field<T> {
  return {
    write: (w, value) => w.u8(values.indexOf(value)),
    read: (r) => {
      const index = r.u8();
      const value = values[index];
      if (value === undefined) throw new WireError(`unknown ${what} ${index} at offset ${r.offset - 1}`);
      return value;
    },
  };
}

/** After how many they are. A list that no reader takes is not written: its connection would end each time that it is sent again. */
export function list<T>(count: Field<number>, each: Field<T>, most: number, what: string): Field<readonly T[]> {
  return {
    write: (w, values) => {
      if (values.length > most) throw new AssertionError(`${values.length} ${what} to write, at most ${most} allowed`);
      count.write(w, values.length);
      for (const value of values) each.write(w, value);
    },
    read: (r) => {
      const values = count.read(r);
      if (values > most) throw new WireError(`${values} ${what} at offset ${r.offset}, at most ${most} allowed`);
      return Array.from({ length: values }, () => each.read(r));
    },
  };
}

/** `none` stands for null. */
export function orNull<T>(field: Field<T>, none: T): Field<T | null> {
  return {
    write: (w, value) => field.write(w, value ?? none),
    read: (r) => {
      const value = field.read(r);
      return value === none ? null : value;
    },
  };
}

/** After a flag that says whether it is there. */
export function maybe<T>(field: Field<T>): Field<T | null> {
  return {
    write: (w, value) => {
      w.bool(value !== null);
      if (value !== null) field.write(w, value);
    },
    read: (r) => (r.bool() ? field.read(r) : null),
  };
}

function checked<T extends object>(empty: object, fields: Readonly<Record<string, Field<unknown>>>, check?: (value: T) => void): Field<T> {
  const keys = Object.keys(fields);
  const all = Object.values(fields);
  // Every value begins as a copy of this one, so all of a kind have one shape.
  const blank: Record<string, unknown> = { ...empty, ...Object.fromEntries(keys.map((key) => [key, null])) };
  return {
    write: (w, value) => {
      const from = value as Record<string, unknown>;
      for (let at = 0; at < keys.length; at++) (all[at] as Field<unknown>).write(w, from[keys[at] as string]);
    },
    read: (r) => {
      const value = { ...blank };
      for (let at = 0; at < keys.length; at++) value[keys[at] as string] = (all[at] as Field<unknown>).read(r);
      check?.(value as T);
      return value as T;
    },
  };
}

/** `check` throws WireError for values that do not go together. */
export function record<T extends object>(fields: Fields<T>, check?: (value: T) => void): Field<T> {
  return checked({}, fields as Readonly<Record<string, Field<unknown>>>, check);
}

export function row<M extends { readonly kind: string }>(
  kind: M["kind"],
  type: number,
  fields: Fields<Omit<M, "kind">>,
  check?: (message: M) => void,
): Row<M> {
  return { type, ...checked({ kind }, fields as unknown as Readonly<Record<string, Field<unknown>>>, check) };
}

/** By its type on the wire. */
export function rowsByType<M extends { readonly kind: string }>(rows: Rows<M>): ReadonlyMap<number, Row<M>> {
  return new Map(Object.values(rows as unknown as Readonly<Record<string, Row<M>>>).map((each) => [each.type, each]));
}
