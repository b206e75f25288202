// What readers yield, whatever the format: a record and where it stands, read when somebody asks.

/** One line, row or element; `where` is its `file:line`. */
export interface FileRecord {
  where: string;
  /** The record itself; throws a `DataError` if it is malformed. */
  read: () => unknown;
}
