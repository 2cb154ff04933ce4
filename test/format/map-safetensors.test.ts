import { mkdtempSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { mapSafetensors, writeSafetensors } from '../../lib/format/safetensors.js';
import { embeddingBagSync, gatherSync, memory, tensor, topKSync } from '../../lib/index.js';

const folder = mkdtempSync(join(tmpdir(), 'topknot-map-'));
afterAll(() => rmSync(folder, { recursive: true }));
const rejects = (promise: Promise<unknown>, code: string) => expect(promise).rejects.toMatchObject({ code });

const [rows, cols] = [8192, 16]; // 512 KiB: ends where a page ends
const values = Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i));
const table = tensor(values, { shape: [rows, cols] });

describe('mapSafetensors', () => {
  it('gives tensors that work like others and take no memory', async () => {
    const path = join(folder, 'table.safetensors');
    const odd = tensor([1, 2, 3], { dtype: 'float16' });
    await writeSafetensors(path, [
      ['odd', odd],
      ['table', table],
    ]);
    const before = memory().hostBytes;
    const { tensors } = await mapSafetensors(path, { randomAccess: true });
    expect(memory().hostBytes - before).toBeLessThan(1024); // the header, not the table
    const mapped = tensors.get('table') as typeof table;
    expect(mapped.shape).toEqual([rows, cols]);
    const ids = Int32Array.of(0, rows - 1, 77);
    expect(gatherSync(mapped, ids).dataSync()).toEqual(gatherSync(table, ids).dataSync());
    const bags = Int32Array.of(0, 2, 3);
    expect(embeddingBagSync(mapped, ids, bags).dataSync()).toEqual(embeddingBagSync(table, ids, bags).dataSync());
    const queries = tensor(values.slice(0, cols), { shape: [1, cols] });
    expect(topKSync(queries, mapped, 5).ids.dataSync()).toEqual(topKSync(queries, table, 5).ids.dataSync());
    expect([...(await tensors.get('odd')!.data())]).toEqual([1, 2, 3]);
  });

  it('keeps the old content when the file is replaced', async () => {
    const path = join(folder, 'replaced.safetensors');
    await writeSafetensors(path, [['t', tensor([1, 2])]]);
    const { tensors } = await mapSafetensors(path, { names: ['t'] });
    await writeSafetensors(path, [['t', tensor([3, 4])]]);
    expect([...(await tensors.get('t')!.data())]).toEqual([1, 2]);
  });

  it('refuses files cut short and tensors that it cannot map', async () => {
    const path = join(folder, 'bad.safetensors');
    await writeSafetensors(path, [['t', table]]);
    truncateSync(path, statSync(path).size - 4);
    await rejects(mapSafetensors(path), 'ERR_FORMAT');
    truncateSync(path, 5);
    await rejects(mapSafetensors(path), 'ERR_FORMAT');
    await rejects(mapSafetensors(join(folder, 'none')), 'ERR_IO');
    await writeSafetensors(path, [['yes', tensor([1], { dtype: 'bool' })]]);
    await rejects(mapSafetensors(path), 'ERR_DTYPE');
    await rejects(mapSafetensors(path, { names: ['no'] }), 'ERR_FORMAT');
    // A header of 61 bytes puts the data at byte 69, which is no multiple of 4.
    const header = JSON.stringify({ t: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } }).padEnd(61);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(61n);
    const other = join(folder, 'other');
    writeFileSync(other, Buffer.concat([length, Buffer.from(header), Buffer.alloc(8)]));
    renameSync(other, path);
    await rejects(mapSafetensors(path), 'ERR_FORMAT');
  });
});
