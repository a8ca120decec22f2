/** Photographs out of what was chosen or dropped: files, and folders with all that lies below. */

/** A photograph and the path that it is shown under. */
export interface Named {
  name: string;
  file: File;
}

const ENDINGS = /\.(jpe?g|jfif|png|webp|gif|bmp|avif|hei[cf]|tiff?)$/i;

/** Whether a file claims to be a picture; hidden files are none. */
export function looksLikePicture(file: File): boolean {
  return !file.name.startsWith(".") && (file.type.startsWith("image/") || ENDINGS.test(file.name));
}

/** Files of an input element. */
export function chosen(files: Iterable<File>): Named[] {
  return [...files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
}

/** Files of a drop. Entries must be asked for before the first wait: the browser forgets them then. */
export async function dropped(transfer: DataTransfer): Promise<Named[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (entries.length === 0) return chosen(transfer.files);
  return (await Promise.all(entries.map(below))).flat();
}

async function below(entry: FileSystemEntry): Promise<Named[]> {
  const name = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ name, file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const children: FileSystemEntry[] = [];
  for (;;) {
    // A hundred at a time, until none are left.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    children.push(...some);
  }
  return (await Promise.all(children.map(below))).flat();
}
