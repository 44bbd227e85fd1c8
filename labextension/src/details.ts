/**
 * The lease in full, for the dialog of `nimbus:show-lease`.
 */
import { Widget } from '@lumino/widgets';

import { idlePolicy } from './idle';
import { exactTime, renewalSentence, shortTime } from './lease';
import type { LeaseModel } from './model';
import type { Lease } from './wire';

const GIGABYTE = 2 ** 30;

/** Return a table of what the lease holds and until when. */
export function leaseDetails(model: LeaseModel, lease: Lease): Widget {
  const node = document.createElement('dl');
  node.className = 'jp-nimbus-Details';
  for (const [term, text] of rows(model, lease)) {
    const name = document.createElement('dt');
    name.textContent = term;
    const value = document.createElement('dd');
    value.textContent = text;
    node.append(name, value);
  }
  return new Widget({ node });
}

function rows(model: LeaseModel, lease: Lease): [string, string][] {
  const left = model.secondsLeft;
  const idle = idlePolicy(lease, model.now);
  const end = lease.expires_at === null ? 'not set yet' : exactTime(lease.expires_at);
  return [
    ['State', lease.reason === '' ? lease.state : `${lease.state}: ${lease.reason}`],
    ['Ends', left === null || model.isOver ? end : `${end}, in ${shortTime(left)}`],
    ['Renewal', `${renewalSentence(lease, model.now)} Renewed ${lease.renewals} times.`],
    ...(idle === null ? [] : [['Activity', idle] as [string, string]]),
    ...lease.slots.map((slot): [string, string] => ['Holds', slotText(slot)]),
    ['Environment', lease.environment],
    ['Lease', lease.id]
  ];
}

function slotText(slot: Lease['slots'][number]): string {
  const parts = [
    `${slot.cpus_milli / 1000} CPUs`,
    `${Math.round((slot.memory_bytes / GIGABYTE) * 10) / 10} GiB of memory`,
    slot.gpus.length === 0 ? 'no GPU' : `GPU ${slot.gpus.join(', ')}`
  ];
  return `${parts.join(', ')} on ${slot.host}`;
}
