import { expected } from './errors.js';
import { native } from './native.js';

/** A device that tensors can live on. */
export interface DeviceInfo {
  /** 'cpu', 'cuda:0', ... */
  device: string;
  name: string;
  /** The instruction set in use; 'sm_90' and the like on a GPU. */
  isa: string;
  /** Memory in bytes. */
  totalBytes: number;
  /** Of a GPU: the CUDA version that the driver supports, '13.0'. */
  driver?: string | undefined;
}

/** The CPU, then the CUDA devices. The first call looks for the CUDA plugin and the driver. */
export function devices(): readonly DeviceInfo[] {
  return native.devices();
}

/** Why there is no CUDA device, and what to do; empty when there is one. */
export function cudaProblem(): string {
  return native.cudaProblem();
}

/**
 * The full name of a device that is there: 'cpu', 'cuda:0', ... Whatever has an option `device` takes the same names.
 *
 * @param name 'cpu'; 'cuda', the first GPU; 'cuda:1', ...; or 'auto', the first GPU that can be used, else the CPU;
 *   a GPU that was lost (ERR_DEVICE_LOST) is passed over
 * @throws ERR_DEVICE when there is no such device, saying what was found and what to do; ERR_ARGUMENT for another name
 * @example const users = tensor(vectors).to(device('auto'));
 */
export function device(name: string): string {
  if (typeof name !== 'string') expected('device', "'cpu', 'cuda', 'cuda:0', ... or 'auto'", name);
  return native.device(name);
}
